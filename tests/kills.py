"""Workers that are killed under load, and what became of every request that failed by that.

A connection belongs to one process. When that is killed, the kernel closes it, and nobody else can serve it: so what
fails is the request that ran there, and those that were sent on its connections and had not begun to run. Clients that
find a kept connection closed before they ask on it notice nothing, nor do those that ask again on a fresh one, which
RFC 9112 section 9.3.1 lets them do with idempotent requests.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.harness import PATIENCE, ROOT, Server, eventually


@dataclass
class Failure:
    """A request that got no whole answer: its number, the port of its client, and when it was sent (monotonic)."""

    number: int
    port: int
    sent_at: float
    error: str


@dataclass
class Death:
    """A worker that was killed, when (monotonic), and the ports of the clients whose connections it held."""

    pid: int
    at: float
    ports: set[int]


class Asker(threading.Thread):
    """A client that asks until it is told to stop, with a number of its own in each request."""

    numbers = itertools.count(1)

    def __init__(
        self, port: int, path: str, *, keep_alive: bool, body: bytes | None = None, pause: float = 0.0
    ) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.path = path
        self.keep_alive = keep_alive
        self.body = body
        self.pause = pause
        self.statuses: Counter[int] = Counter()
        #: How many kept connections were found closed before anything was asked on them.
        self.closed_idle = 0
        self.failures: list[Failure] = []
        self.ended = threading.Event()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def run(self) -> None:
        while not self.ended.is_set():
            number = next(self.numbers)
            while (failure := self._ask(number)) is not None:  # again, on a fresh connection
                self.failures.append(failure)
            self.ended.wait(self.pause)
        self._connection.close()

    def _ask(self, number: int) -> Failure | None:
        connection, port, sent_at = self._connection, 0, 0.0
        if connection.sock is not None and _is_closed(connection.sock):
            self.closed_idle += 1
            connection.close()
        try:
            if connection.sock is None:
                connection.connect()
            port, sent_at = connection.sock.getsockname()[1], time.monotonic()
            connection.request("POST" if self.body else "GET", f"{self.path}?n={number}", self.body)
            answer = connection.getresponse()
            answer.read()
            self.statuses[answer.status] += 1
            if not self.keep_alive:
                connection.close()
            return None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Failure(number, port, sent_at, repr(error))


def _is_closed(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Askers:
    """Some keep their connections, some of those rest between two requests, some upload."""

    def __init__(self, server: Server) -> None:
        port = server.port
        self.all = [
            *(Asker(port, "/", keep_alive=False) for _ in range(2)),
            *(Asker(port, "/stream", keep_alive=True) for _ in range(2)),
            *(Asker(port, "/slow", keep_alive=True) for _ in range(2)),
            *(Asker(port, "/", keep_alive=True, pause=0.1) for _ in range(4)),
            *(Asker(port, "/upload", keep_alive=False, body=b"x" * size) for size in (100_000, 2 << 20)),
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[Askers]:
        for asker in self.all:
            asker.start()
        try:
            yield self
        finally:
            for asker in self.all:
                asker.ended.set()
            for asker in self.all:
                asker.join(PATIENCE)

    @property
    def answers(self) -> int:
        return sum(asker.statuses[200] for asker in self.all)

    @property
    def closed_idle(self) -> int:
        return sum(asker.closed_idle for asker in self.all)

    @property
    def failures(self) -> list[Failure]:
        return [failure for asker in self.all for failure in asker.failures]


class Killer:
    """A process of its own: what a worker holds has to be looked at in less time than a thread waits for its turn."""

    def __enter__(self) -> Killer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def kill(self, pid: int) -> Death | None:
        """SIGKILL, having stopped it for the moment it takes to see what it holds. None if it was gone already."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{pid}\n")
        self._process.stdin.flush()
        words = self._process.stdout.readline().split()
        return Death(pid, float(words[0]), {int(word) for word in words[1:]}) if words else None


def _kill(pid: int) -> str:
    try:
        at = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        ports = _clients_of(pid)
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return ""
    return " ".join(map(str, (at, *ports)))


def _clients_of(pid: int) -> set[int]:
    """Ports of those whose connections a process holds. By hand: psutil takes ten times as long."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file]
    return {int(row[2].partition(":")[2], 16) for row in rows[1:] if row[9] in inodes}


def judge(failures: list[Failure], deaths: list[Death], log: str) -> Counter[str]:
    """How many there are of each kind."""
    running = {
        (int(pid), int(number))
        for pid, number in re.findall(r'pid=(\d+) was ended by SIGKILL while serving "\w+ [^"]*\?n=(\d+) ', log)
    }
    found: Counter[str] = Counter()
    for failure in failures:
        owners = [death for death in deaths if failure.port in death.ports]
        if any((death.pid, failure.number) in running for death in owners):
            found["running"] += 1
        elif any(failure.sent_at < death.at for death in owners):
            found["waiting"] += 1
        elif owners:
            found["late"] += 1
        else:
            found["other"] += 1
    return found


def run(server: Server, seconds: float, every: float = 1.0) -> str:
    """Kill a random worker every second; what happened, in words. Raises AssertionError."""
    chance, deaths = random.Random(1), []
    with Killer() as killer, Askers(server).running() as askers:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            workers = server.workers()
            death = killer.kill(chance.choice(workers)) if workers else None
            if death is not None:
                deaths.append(death)
            time.sleep(every)  # prefork: ok (the rhythm of kills)
        before = askers.answers
        eventually(lambda: askers.answers > before + 20, "all goes on")
    assert not any(asker.is_alive() for asker in askers.all), "a request was never answered"
    assert all(set(asker.statuses) == {200} for asker in askers.all), [asker.statuses for asker in askers.all]
    assert deaths, "nobody was killed"
    server.wait_for("was ended by SIGKILL", times=len(deaths))
    failures = askers.failures
    found = judge(failures, deaths, server.log)
    assert not found["other"], [f for f in failures if not any(f.port in death.ports for death in deaths)][:5]
    assert found["running"] <= len(deaths), "more than one request ran in a process"
    return (
        f"{len(deaths)} kills, {askers.answers} answers, {len(failures)} failed at first and none at last: "
        f"{found['running']} ran in the process that was killed, {found['waiting']} had been sent on its connections "
        f"and did not run yet, {found['late']} were sent on them when it was dead; 0 others. "
        f"{askers.closed_idle} connections were closed while nothing was asked on them"
    )


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # that of a process with rights: nobody else's turn comes in between
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    for line in sys.stdin:
        print(_kill(int(line)), flush=True)
