"""Clients on raw keep-alive connections, and how long they wait."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tests.harness import Server, send


class Kept:
    """One kept connection: `get()` asks and reads one answer."""

    def __init__(self, server: Server) -> None:
        self.sock = server.connect()
        self._file = self.sock.makefile("rb")

    def send(self, path: str) -> None:
        send(self.sock, path)

    def read(self) -> dict[str, Any]:
        """One answer; ConnectionResetError if the connection ends instead."""
        status = self._file.readline()
        if not status:
            raise ConnectionResetError
        assert status.startswith(b"HTTP/1.1 200"), status
        length = 0
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answer: dict[str, Any] = json.loads(self._file.read(length))
        return answer

    def get(self, path: str) -> dict[str, Any]:
        self.send(path)
        return self.read()

    def close(self) -> None:
        self._file.close()
        self.sock.close()


class Busy(NamedTuple):
    """A server of which every worker is at a request, and connections that were served before."""

    server: Server
    kept: list[Kept]
    blockers: list[Kept]


@contextlib.contextmanager
def all_busy(seconds: float, *, kept: int = 10, workers: int = 2, errors: str = "") -> Iterator[Busy]:
    """`seconds` is how long each of the blockers' requests takes: what is sent meanwhile has to wait."""
    with Server("--workers", str(workers), application="work", errors=errors).ready() as server:
        server.full_strength(workers)
        busy = Busy(server, [Kept(server) for _ in range(kept)], [])
        for one in busy.kept:
            one.get("/pid")
        for _ in range(workers):
            busy.blockers.append(Kept(server))
            busy.blockers[-1].send(f"/sleep?s={seconds}")
        server.wait_for("sleeping", times=workers)
        yield busy
        for one in (*busy.kept, *busy.blockers):
            one.close()


class Beside:
    """Fast requests, one every 50 ms on each of `count` connections, beside slow ones without pause on one."""

    def __init__(self, server: Server, count: int, slow: str, seconds: float) -> None:
        self.latencies: list[float] = []
        self.slow_answers = 0
        self._until = time.monotonic() + seconds
        kept = [Kept(server) for _ in range(count)]
        with ThreadPoolExecutor(count + 1) as pool:
            runs = [pool.submit(self._fast, one, at) for at, one in enumerate(kept)]
            runs.append(pool.submit(self._slowly, Kept(server), slow))
        for run in runs:
            run.result()

    def _fast(self, kept: Kept, at: int) -> None:
        due = time.monotonic() + at * 0.005
        while due < self._until:
            time.sleep(max(0.0, due - time.monotonic()))  # prefork: ok (the rhythm of the requests)
            began = time.monotonic()
            kept.get("/pid")
            self.latencies.append(time.monotonic() - began)
            due += 0.05

    def _slowly(self, kept: Kept, path: str) -> None:
        while time.monotonic() < self._until:
            kept.get(path)
            self.slow_answers += 1

    def percentile(self, share: float) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * share)]
