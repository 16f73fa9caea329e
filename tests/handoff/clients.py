"""Clients on raw keep-alive connections, and how long they wait."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.harness import PATIENCE, Server


class Kept:
    """One kept connection: `get()` asks and reads one answer."""

    def __init__(self, server: Server) -> None:
        self.sock = server.connect()
        self._file = self.sock.makefile("rb")

    def send(self, path: str) -> None:
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def read(self) -> dict[str, Any]:
        status = self._file.readline()
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


class Beside:
    """Fast requests, one every 50 ms on each of `count` connections, beside slow ones without pause on one."""

    def __init__(self, server: Server, count: int, slow: str, seconds: float) -> None:
        self.latencies: list[float] = []
        self.slow_answers = 0
        self._until = time.monotonic() + seconds
        self._failures: list[BaseException] = []
        kept = [Kept(server) for _ in range(count)]
        runs: list[Callable[[], None]] = [lambda one=one, at=at: self._fast(one, at) for at, one in enumerate(kept)]
        runs.append(lambda: self._slowly(Kept(server), slow))
        threads = [threading.Thread(target=self._guarded, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        if self._failures:
            raise self._failures[0]

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            self._failures.append(error)

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


def unread(sock: socket.socket) -> bool:
    """Whether something is there to be read."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        sock.setblocking(True)
