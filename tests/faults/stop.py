"""TERM under load without `drain_delay`: how many connections meet the closing listener: `python -m tests.faults.stop`.

Clients that nobody withdraws ask until they are refused. Each attempt is counted by how it ended:

    answered   with 200
    refused    the listener was closed: the client knows that nothing was done, and may try elsewhere
    reset      the connection was made, and then lost without a byte of an answer
    broken     it was lost within an answer: never right
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import re
import signal
import socket
import sys
import threading

from tests.faults.tools import serve
from tests.harness import PATIENCE, Server, eventually, send


class Crowd:
    """`count` clients, half of which keep their connection."""

    def __init__(self, server: Server, count: int) -> None:
        self.port = server.port
        self.fates: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(bool(n % 2),), daemon=True) for n in range(count)]

    def _count(self, fate: str) -> None:
        with self._lock:
            self.fates[fate] += 1

    def _ask(self, keep_alive: bool) -> None:
        while not self._ended.is_set():
            try:
                sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
            except ConnectionRefusedError:
                self._count("refused")
                return  # it has met the closed door, once
            except ConnectionResetError:
                self._count("reset, connecting")
                continue
            with sock:
                first = True
                while not self._ended.is_set():
                    fate = self._exchange(sock, keep_alive)
                    if fate.startswith("answered"):
                        self._count("answered")
                        if fate == "answered" and keep_alive:
                            first = False
                            continue
                    else:
                        self._count(f"{fate}, {'a new' if first else 'a kept'} connection")
                    break

    @staticmethod
    def _exchange(sock: socket.socket, keep_alive: bool) -> str:
        try:
            send(sock, "/sleep?s=0.01", *([] if keep_alive else ["Connection: close"]))
            data = b""
            while not (head := data.partition(b"\r\n\r\n"))[1] or len(head[2]) < _length(head[0]):
                more = sock.recv(65536)
                if not more:
                    return "broken" if data else "reset"
                data += more
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        if not data.startswith(b"HTTP/1.1 200"):
            return f"answered {data[9:12].decode()}"
        return "answered, and closed" if b"connection: close" in head[0].lower() else "answered"

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.fates["answered"] > len(self._threads) * 2, "all of them ask")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            for thread in self._threads:
                thread.join(5)
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def _length(head: bytes) -> int:
    found = re.search(rb"(?im)^content-length: *(\d+)", head)
    return int(found[1]) if found else 0


def measure(times: int, clients: int, workers: int) -> collections.Counter[str]:
    fates: collections.Counter[str] = collections.Counter()
    for _ in range(times):
        with serve("--workers", str(workers)).ready() as server:
            server.full_strength(workers)
            with Crowd(server, clients) as crowd:
                server.kill(signal.SIGTERM)
                assert server.wait() == 0
            fates += crowd.fates
    return fates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    fates = measure(options.times, options.clients, options.workers)
    print(f"{options.times} times TERM under {options.clients} clients that go on, {options.workers} workers:")
    for fate, count in sorted(fates.items()):
        print(f"{count:6d} {fate}")
    return 1 if any("broken" in fate or "500" in fate for fate in fates) else 0


if __name__ == "__main__":
    sys.exit(main())
