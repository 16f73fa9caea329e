"""python -m tests.observing [stuck] [counters] [siege]: what the tests show, with figures and for longer.

stuck: with all workers in views that hang, how long each question takes. counters: 100,000 requests by wrk, workers
killed at random, two reloads, and what the metrics say then. siege: how soon the Arbiter sees a dead worker while 1,000
slow connections are at the status port. Exit status 1 if anything is not as it should be.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from django_prefork.asking import ask as control
from tests.harness import ROOT, Server, eventually
from tests.observing.tools import django, end, metrics, status_port, stuck, tell, watched

SOON = 0.1  # seconds that a question may take
REQUESTS = 100_000
WORKERS = 4
CLIENTS = 32
SLOW = 1_000


def report(text: str, good: bool) -> bool:
    print(f"{'ok  ' if good else 'FAIL'}  {text}", flush=True)
    return good


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def all_stuck() -> bool:
    good = True
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "control.sock"))
        with django(
            *("--workers", "3", "--timeout", "60", "--status-bind", "127.0.0.1:0", "--control-socket", path)
        ).ready() as server:
            stuck(server, 3)
            eventually(lambda: tell(server, "/ready")[0] == 503, "not ready")
            named = control(path, {"do": "status"})["status"]["workers"]
            good &= report(
                f"named: {sorted(worker['request']['path'] + ' ' + worker['request']['view'] for worker in named)}",
                all(worker["request"]["view"] == "tests.site.urls.Sleep" for worker in named) and len(named) == 3,
            )
            questions: dict[str, Callable[[], object]] = {
                page: (lambda page=page: tell(server, page)) for page in ("/live", "/ready", "/status.json", "/metrics")
            }
            questions["preforkctl status"] = lambda: control(path, {"do": "status"})
            questions["preforkctl stacks"] = lambda: control(path, {"do": "stacks"})
            for name, question in questions.items():
                took = [seconds(question) for _ in range(20)]
                text = f"{name}: median {statistics.median(took) * 1e3:.1f} ms, longest {max(took) * 1e3:.1f} ms of 20"
                good &= report(text, statistics.median(took) < SOON)
            command = [sys.executable, "-m", "django_prefork.ctl", "--control-socket", path, "status"]
            whole = seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True))
            print(f"      with an interpreter that has to start: {whole * 1e3:.0f} ms")
            end(server)
    return good


def counters() -> bool:
    if shutil.which("wrk") is None:
        return report("counters need wrk: apt-get install wrk", False)
    random.seed(8)
    with Server("--workers", str(WORKERS), "--status-bind", "127.0.0.1:0", errors="SIGKILL") as server:
        server.ready()
        answered = kills = broken = runs = 0
        before = sum(metrics(server)["prefork_requests_total"].values())
        generation = 1
        rate = REQUESTS / 10
        while answered < REQUESTS:
            runs += 1
            # Few and long: at the end of each, wrk forgets what is on its way.
            span = max(5, min(120, int((REQUESTS - answered) / rate * 1.1)))
            began = time.monotonic()
            wrk = subprocess.Popen(
                ["wrk", "-t1", f"-c{CLIENTS}", f"-d{span}", f"http://127.0.0.1:{server.port}/"],
                stdout=subprocess.PIPE,
                text=True,
            )
            while wrk.poll() is None:
                time.sleep(random.uniform(0.5, 1.5))  # prefork: ok
                if wrk.poll() is None:
                    with contextlib.suppress(IndexError, ProcessLookupError):
                        server.kill(signal.SIGKILL, random.choice(server.workers(generation)))
                        kills += 1
                if wrk.poll() is None and generation < 3 and time.monotonic() - began > generation * span / 4:
                    server.kill(signal.SIGHUP)
                    generation += 1
                    server.ready(generation)
            assert wrk.stdout is not None
            said = wrk.stdout.read()
            wrk.wait()
            got = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
            answered += got
            rate = max(1.0, got / (time.monotonic() - began))
            errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
            broken += sum(map(int, errors.groups())) if errors else 0
        told = sum(metrics(server)["prefork_requests_total"].values()) - before
        # What was on its way at a kill; and at the end of a run, what wrk did not wait for.
        slack = kills + runs * CLIENTS
        text = (
            f"counters: wrk got {answered} answers ({kills} kills, {generation - 1} reloads, {broken} errors), "
            f"the metrics say {told:.0f}: {told - answered:+.0f}, at most {slack} may be on their way"
        )
        return report(text, abs(told - answered) <= slack)


@contextlib.contextmanager
def besieged(port: int) -> Iterator[None]:
    """Connections that send a byte a second, and come back when they are sent away."""
    over = threading.Event()

    def press() -> None:
        socks: list[socket.socket] = []
        while not over.is_set():
            while len(socks) < SLOW and not over.is_set():
                with contextlib.suppress(OSError):
                    socks.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            for sock in list(socks):
                try:
                    sock.send(b"G")
                except OSError:
                    sock.close()
                    socks.remove(sock)
            over.wait(1.0)
        for sock in socks:
            sock.close()

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def reactions(server: Server, count: int, seen: int) -> list[float]:
    """From SIGKILL to the Arbiter's word of it."""
    found = []
    for number in range(count):
        worker = server.full_strength(2)[0]
        began = time.monotonic()
        server.kill(signal.SIGKILL, worker)
        server.wait_for("was ended by SIGKILL", times=seen + number + 1)
        found.append(time.monotonic() - began)
        time.sleep(0.5)  # prefork: ok
    return found


def siege() -> bool:
    with watched("--workers", "2", errors="SIGKILL").ready() as server:
        calm = reactions(server, 15, 0)
        with besieged(status_port(server)):
            time.sleep(2)  # prefork: ok
            pressed = reactions(server, 15, 15)
            probe = [seconds(lambda: tell(server, "/live")) for _ in range(20)]
    text = (
        f"siege: a dead worker is seen after {statistics.median(calm) * 1e3:.1f} ms (longest {max(calm) * 1e3:.1f}); "
        f"with {SLOW} slow connections {statistics.median(pressed) * 1e3:.1f} ms (longest {max(pressed) * 1e3:.1f}); "
        f"/live then takes {statistics.median(probe) * 1e3:.1f} ms (longest {max(probe) * 1e3:.1f})"
    )
    return report(text, statistics.median(pressed) < statistics.median(calm) + 0.02)


PARTS = {"stuck": all_stuck, "counters": counters, "siege": siege}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        sys.exit(f"{', '.join(unknown)}: none of {', '.join(PARTS)}")
    results = [PARTS[name]() for name in chosen]
    sys.exit(0 if all(results) else 1)
