"""python -m benchmarks.memory: what all processes of a server need together, first requests, and garbage collection.

Three questions, which --only chooses from: `pss`, the proportional set size (proc(5), smaps_rollup) of all processes
after 400 requests to each of three pages; `first`, how long a fresh worker's first request takes with and without
`warmup`; `garbage`, when Python's collector runs in 10,000 requests of a report.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, cpu, environment
from benchmarks.applications import APPLICATIONS, Application, make_demo_data
from benchmarks.environment import BIN, PYTHON, ROOT, say, variables
from benchmarks.processes import Running, StartError, free_port, serving
from benchmarks.report import machine
from benchmarks.servers import OURS, SERVERS, Server, Target

REQUESTS = 400
# What was set out to be reached on Wagtail, in units of what gunicorn without preload needs.
BARS = {4: 0.55, 8: 0.45}
FIRST_BAR = 0.4
_HEALTH = "/-/health"
_WAGTAIL = """from .base import *

DEBUG = False
SECRET_KEY = "only-for-benchmarks"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS += ["django_prefork"]
"""
_COLLECTED = Application(
    "collected",
    "the demo's report, with the collector watched",
    ("benchmarks.site.collected", "application"),
    "benchmarks.site.collected_settings",
    b"",
    probe="",
)
_REPORT = "/report/?seconds=0"


@dataclass(frozen=True)
class Site:
    """`pages` are asked for, and are what our server warms up."""

    application: Application
    pages: tuple[str, str, str]


def main() -> None:
    options = _options()
    command.prepare(pin=False)
    versions = environment.prepare(["gunicorn", "granian", "wagtail"])
    where = machine()
    print(f"{where['cpu']}, {where['cores']} cores, Linux {where['kernel']}, Python {where['python']}")
    names = ("django", "wagtail", "gunicorn", "granian")
    print(", ".join(f"{name} {versions[name]}" for name in names if name in versions), "\n")
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        sites = [make(folder) for key, make in _SITES.items() if key in options.sites]
        if "pss" in options.only:
            for site in sites:
                for workers in options.workers:
                    missed += _compare(site, workers, folder)
        if "first" in options.only:
            for site in sites:
                missed += _first_requests(site, options.rounds, folder)
        if "garbage" in options.only:
            missed += _garbage(options.requests, folder)
    for text in missed:
        print(f"! {text}")
    sys.exit(1 if missed else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--only", type=command.names(["pss", "first", "garbage"]), default=["pss", "first", "garbage"])
    parser.add_argument("--sites", type=command.names(list(_SITES)), default=list(_SITES))
    parser.add_argument("--workers", type=_numbers, default=[4, 8])
    parser.add_argument("--rounds", type=command.positive, default=7, help="starts for each first request")
    parser.add_argument("--requests", type=command.positive, default=10_000, help="while garbage is watched")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [command.positive(word) for word in text.split(",")]


# -- sites -------------------------------------------------------------------------------------------------------------


def _demo(folder: Path) -> Site:
    make_demo_data(folder)
    application = next(application for application in APPLICATIONS if application.name == "demo")
    return Site(application, ("/", "/files/", _REPORT))


def _wagtail(folder: Path) -> Site:
    """What `wagtail start` makes, with DEBUG off."""
    root = folder / "wagtail"
    root.mkdir()
    path = f"{root}:{ROOT}"
    environ = variables(DJANGO_SETTINGS_MODULE="mysite.settings.benchmark", PYTHONPATH=path)

    def run(*words: str | Path) -> None:
        subprocess.run(words, cwd=root, env=environ, check=True, capture_output=True, timeout=300)

    run(BIN / "wagtail", "start", "mysite", root)
    (root / "mysite" / "settings" / "benchmark.py").write_text(_WAGTAIL)
    run(PYTHON, "manage.py", "migrate", "--verbosity", "0")
    application = Application(
        "wagtail",
        "a fresh Wagtail site",
        ("mysite.wsgi", "application"),
        "mysite.settings.benchmark",
        b"",
        probe="",
        environ={"PYTHONPATH": path},
    )
    return Site(application, ("/", "/search/?query=welcome", "/admin/login/"))


_SITES = {"demo": _demo, "wagtail": _wagtail}


# -- memory ------------------------------------------------------------------------------------------------------------


def _servers(site: Site) -> list[Server]:
    known = {server.name: server for server in SERVERS}
    gunicorn, ours = known["gunicorn-sync"].command, known[OURS].command

    def preloaded(target: Target) -> list[str | Path]:
        return [*gunicorn(target), "--preload"]

    def warmed(target: Target) -> list[str | Path]:
        return [*ours(target), "--warmup", ",".join(site.pages)]

    return [
        Server("gunicorn", "gunicorn", gunicorn),
        Server("gunicorn --preload", "gunicorn", preloaded),
        known["granian"],
        Server(OURS, OURS, ours),
        Server(f"{OURS}, warmed up", OURS, warmed),
    ]


def _compare(site: Site, workers: int, folder: Path) -> list[str]:
    """Print a table; what was not reached."""
    title = f"{site.application.title}, {workers} workers, {REQUESTS} requests to each of {', '.join(site.pages)}"
    print(title)
    found: dict[str, float] = {}
    for server in _servers(site):
        try:
            with server.serve(site.application, folder, workers=workers, pin=False) as running:
                _ask_all(running, site.pages, workers)
                found[server.name] = _pss(running)
        except StartError as error:
            say(f"{server.name}: {error}")
            continue
        ratio = f"{found[server.name] / found['gunicorn']:6.2f}" if "gunicorn" in found else ""
        print(f"  {server.name:28} {found[server.name] / 1024:8.1f} MiB {ratio}", flush=True)
    print()
    ours, bar = found.get(f"{OURS}, warmed up"), BARS.get(workers)
    if site.application.name == "wagtail" and bar and ours and ours / found["gunicorn"] > bar:
        return [f"{ours / found['gunicorn']:.2f} x of gunicorn with {workers} workers on Wagtail, {bar} was wanted"]
    return []


def _ask_all(running: Running, pages: tuple[str, ...], workers: int) -> None:
    """One connection a request, from more clients than there are workers, so that each of them gets its share."""
    todo = [page for _ in range(REQUESTS) for page in pages]
    failures: list[str] = []

    def ask() -> None:
        while True:
            try:
                page = todo.pop()
            except IndexError:
                return
            status = _get(running, page)
            if status != 200:
                failures.append(f"{page} was answered with {status}")

    _together(ask, 2 * workers)
    if failures:
        raise StartError(f"{len(failures)} of its answers were wrong: {failures[0]}")


def _get(running: Running, page: str) -> int:
    connection = running.connection(60.0)
    try:
        connection.request("GET", page, headers={"Host": "localhost", "Connection": "close"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _pss(running: Running) -> float:
    """Of all processes together, in KiB."""
    total = 0.0
    for pid in running.family():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += float(line.split()[1])
    return total


# -- first requests ----------------------------------------------------------------------------------------------------


@contextmanager
def _ours(application: Application, folder: Path, *options: str) -> Iterator[Running]:
    """One worker that has not been asked anything: its health is answered by the server."""
    port = free_port()
    words = [PYTHON, ROOT / "manage.py", "runprefork", f"127.0.0.1:{port}", "--workers", "1", "--skip-checks"]
    more = ["--health-path", _HEALTH, *options]
    log = folder / "first.log"
    with serving([*map(str, words), *more], port, application.variables(folder), _HEALTH, log) as running:
        yield running


def _first_requests(site: Site, rounds: int, folder: Path) -> list[str]:
    page = site.pages[0]
    ways: dict[str, tuple[str, ...]] = {"without": (), "with": ("--warmup", ",".join(site.pages))}
    first: dict[str, list[float]] = {way: [] for way in ways}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    later: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, options in ways.items():
            with _ours(site.application, folder, *options) as running:
                before = cpu.snapshot(running.pid)
                first[way].append(_seconds(running, page))
                spent[way].append(cpu.growth(before, cpu.snapshot(running.pid)).total / 1e9)
                later[way].append(statistics.median(_seconds(running, page) for _ in range(30)))
    print(f"{site.application.title}, {page}: a fresh worker's first request, and its later ones; {rounds} starts")
    for way in ways:
        low, high = min(first[way]) * 1000, max(first[way]) * 1000
        median, usual = statistics.median(first[way]) * 1000, statistics.median(later[way]) * 1000
        work = statistics.median(spent[way]) * 1000
        print(f"  {way:8} warmup {median:7.1f} ms ({low:.1f}-{high:.1f}), of CPU {work:6.1f} ms; later {usual:6.1f} ms")
    ratio = statistics.median(first["with"]) / statistics.median(first["without"])
    work_ratio = statistics.median(spent["with"]) / statistics.median(spent["without"])
    print(f"  ratio of the first ones: {ratio:.2f}, of their CPU {work_ratio:.2f}\n", flush=True)
    if site.application.name == "wagtail" and ratio > FIRST_BAR:
        return [f"the first request takes {ratio:.2f} x of one without warm-up, {FIRST_BAR} was wanted"]
    return []


def _seconds(running: Running, page: str) -> float:
    began = time.perf_counter()
    status = _get(running, page)
    seconds = time.perf_counter() - began
    if status != 200:
        raise StartError(f"{page} was answered with {status}")
    return seconds


# -- garbage -----------------------------------------------------------------------------------------------------------


def _garbage(requests: int, folder: Path) -> list[str]:
    if not (folder / "demo").exists():
        make_demo_data(folder)
    print(f"{requests} requests of the demo's {_REPORT}, 4 clients, 1 worker: when garbage is collected")
    missed = []
    for way in ("on", "off"):
        with _ours(_COLLECTED, folder, "--collect-between-requests", way) as running:
            _press(running, requests // 10)
            early = _collected(running)
            _press(running, requests - requests // 10)
            late = _collected(running)
        for where in ("within", "between"):
            times, worst = late[where], late[f"worst_{where}"] * 1000
            print(f"  {'collect_between_requests ' + way:28} {where:8} {times:6} times, at most {worst:5.1f} ms")
        sizes = f"{early['resident'] / 1024:.1f} MiB after a tenth, {late['resident'] / 1024:.1f} MiB at the end"
        print(f"  {'':28} resident {sizes}", flush=True)
        if way == "on" and late["within"]:
            missed.append(f"garbage was collected {late['within']} times within a request")
    print()
    return missed


def _press(running: Running, requests: int) -> None:
    wrong: list[int] = []

    def ask() -> None:
        connection = running.connection(60.0)
        for _ in range(requests // 4):
            connection.request("GET", _REPORT, headers={"Host": "localhost"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                wrong.append(answer.status)
                break
        connection.close()

    _together(ask, 4)
    if wrong:
        raise StartError(f"{_REPORT} was answered with {wrong[0]}")


def _together(ask: Callable[[], None], count: int) -> None:
    """In `count` threads, which do not keep this process from being stopped."""
    clients = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def _collected(running: Running) -> dict[str, Any]:
    connection: http.client.HTTPConnection = running.connection(60.0)
    connection.request("GET", "/collected", headers={"Host": "localhost", "Connection": "close"})
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


if __name__ == "__main__":
    main()
