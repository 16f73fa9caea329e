"""`python -m tests.soak saves`: how long a save takes to become a page, and 200 of them in a row under requests."""

from __future__ import annotations

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.demo import with_data
from tests.harness import PATIENCE, ROOT, Clients, Server, eventually

TEMPLATE = "demo_project/board/templates/board/base.html"
VIEWS = "demo_project/board/views.py"
URLS = "demo_project/board/urls.py"
# What the pages may take from the save on (seconds).
TEMPLATE_BAR, VIEW_BAR = 0.3, 1.5
# A look at a page costs something, too (seconds).
BETWEEN_LOOKS = 0.005


class Copy:
    """The demo project in a folder of its own, served with `--reload`; what is saved carries a number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "demo_project", folder / "demo_project", ignore=shutil.ignore_patterns("data", "tests"))
        shutil.copy(ROOT / "manage.py", folder)
        self._texts = {name: (folder / name).read_text() for name in (TEMPLATE, VIEWS, URLS)}
        self.write(URLS, self._texts[URLS].replace("urlpatterns = [", 'urlpatterns = [path("saved/", views.saved),'))
        self.save_view(0)
        self.environment = {**with_data(folder / "demo_project" / "data", folder), "PWD": str(folder)}

    def time_of_a_check(self) -> float:
        """Seconds, the median of three."""
        took = []
        for _ in range(3):
            began = time.monotonic()
            environment = {**self.environment, "PYTHONPATH": str(ROOT)}
            command = [sys.executable, "manage.py", "check"]
            subprocess.run(command, cwd=self.folder, env=environment, check=True, stdout=subprocess.DEVNULL)
            took.append(time.monotonic() - began)
        return statistics.median(took)

    def write(self, name: str, text: str) -> None:
        beside = (self.folder / name).with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.folder / name)

    def save_template(self, number: int) -> None:
        self.write(TEMPLATE, self._texts[TEMPLATE].replace("</body>", f"saved {number}.</body>"))

    def save_view(self, number: int, broken: bool = False) -> None:
        body = f'HttpResponse("saved {number}.")' + ("(" if broken else "")
        self.write(VIEWS, f"{self._texts[VIEWS]}\n\ndef saved(request):\n    return {body}\n")

    @contextmanager
    def serve(self) -> Iterator[Server]:
        command = [sys.executable, "manage.py", "runprefork", "--reload"]
        errors = "waiting for a change"
        with Server(command=command, folder=self.folder, environment=self.environment, errors=errors) as server:
            yield server.ready()


def shows(server: Server, path: str, number: int) -> bool:
    return f"saved {number}.".encode() in server.get(path, PATIENCE)[1]


def until_shown(server: Server, path: str, number: int) -> float:
    """Seconds until the page at `path` has that number."""
    began = time.monotonic()
    while not shows(server, path, number):
        assert time.monotonic() < began + PATIENCE, f"{path} never shows {number}:\n{server.log}"
        time.sleep(BETWEEN_LOOKS)  # prefork: ok (the rhythm of looking)
    return time.monotonic() - began


def latencies(copy: Copy, say: Callable[[str], None], times: int = 20) -> list[str]:
    """What was slower than it may be."""
    missed = []
    with copy.serve() as server:
        for what, path, save, bar in (
            ("template", "/", copy.save_template, TEMPLATE_BAR),
            ("view", "/saved/", copy.save_view, VIEW_BAR),
        ):
            took = []
            for number in range(1, times + 1):
                save(number)
                took.append(until_shown(server, path, number))
                time.sleep(random.uniform(0.2, 1.0))  # prefork: ok (somebody types)
            said = f"median {statistics.median(took):.3f} s, longest {max(took):.3f} s, of {times}; the bar is {bar} s"
            say(f"from saving a {what} to the new page: {said} (load average {os.getloadavg()[0]:.1f})")
            if statistics.median(took) >= bar:
                missed.append(what)
    return missed


def in_a_row(copy: Copy, say: Callable[[str], None], saves: int = 200) -> None:
    copy.save_view(0)
    with copy.serve() as server:
        eventually(lambda: len(server.processes()) == 7, "supervisor, arbiter, watcher, four workers")
        supervisor = psutil.Process(server.pid)
        descriptors, memory = supervisor.num_fds(), supervisor.memory_info().rss
        chance = random.Random(9)
        broken = 0
        with Clients(server, 2, "/saved/") as fresh, Clients(server, 1, "/saved/", keep_alive=True) as kept:
            for number in range(1, saves + 1):
                is_broken = number % 5 == 3
                broken += is_broken
                if number % 5 == 1:
                    copy.save_template(number)
                else:
                    copy.save_view(number, is_broken)
                # Some wait for what they have saved, and some save again at any moment.
                if chance.random() < 0.5:
                    time.sleep(chance.uniform(0.0, 0.7))  # prefork: ok (somebody types)
                elif is_broken:
                    server.wait_for(r"gen=\d+ .*waiting for a change", server.count(r"waiting for a change") + 1)
                else:
                    until_shown(server, "/" if number % 5 == 1 else "/saved/", number)
                if number % 20 == 0:
                    say(f"{number} saves, {len(fresh.answers) + len(kept.answers)} answers")
            copy.save_view(saves + 1)
            until_shown(server, "/saved/", saves + 1)
            fresh.some_more()
            kept.some_more()
        failures = fresh.failures + kept.failures
        statuses = {status for status, _ in fresh.answers + kept.answers}
        assert not failures and statuses == {200}, (failures[:5], statuses)
        order = [int(found[1]) for _, body in kept.answers if (found := re.search(rb"saved (\d+)\.", body))]
        assert order == sorted(order), "one client has seen old code after new"
        eventually(lambda: len(server.processes()) == 7, "no process is left of what was")
        eventually(lambda: supervisor.num_fds() <= descriptors, "the supervisor's descriptors are back")
        say(
            f"{saves} saves, {broken} of them broken: {len(fresh.answers) + len(kept.answers)} answers, 0 refused or"
            f" failed, {kept.connections} connection of the client that keeps one; 7 processes as before,"
            f" {descriptors} -> {supervisor.num_fds()} descriptors and"
            f" {memory / 1048576:.1f} -> {supervisor.memory_info().rss / 1048576:.1f} MiB of the supervisor"
        )
        assert kept.connections == 1


def saves(seconds: float, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder) / "project")
        say(
            f"`manage.py check` takes {copy.time_of_a_check():.3f} s here and now: what loading the project costs alone"
        )
        missed = latencies(copy, say)
        in_a_row(copy, say)
    assert not missed, f"slower than the bar: {missed}"
