"""Clients that keep a connection and ask nothing: what each of them costs.

`python -m tests.wire.idle [--connections 10000]` says it: resident memory of the worker for each connection, and the
CPU time of a request with and without them: the least of five rounds each, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.harness import Server, eventually
from tests.wire.tools import HELLO, ask, connect, cpu_seconds, descriptors, serve, worker_of

#: Bytes of resident memory that one may cost, and what a request may cost more in their presence.
MEMORY = 6 * 1024
CPU = 1.10

REQUESTS = 20_000
ROUNDS = 5


@contextlib.contextmanager
def idle(server: Server, count: int) -> Iterator[None]:
    """`count` connections, each of which has had one answer."""
    worker = worker_of(server)
    before = worker.num_fds()
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(connect(server, HELLO))
            socks.append(sock)
        for sock in socks:
            assert sock.recv(1000).endswith(b"hello\n")
        yield
    # Or their end would be counted in what comes next.
    eventually(lambda: worker.num_fds() <= before, "all of them are gone")


def memory(server: Server, count: int) -> float:
    """Bytes of resident memory for each of `count`."""
    worker = worker_of(server)
    for _ in range(100):
        ask(server)
    before = worker.memory_info().rss
    with idle(server, count):
        return (worker.memory_info().rss - before) / count


def cpu(server: Server, requests: int = REQUESTS) -> float:
    """CPU seconds of the worker for one request, over `requests` on one connection."""
    worker = worker_of(server)
    with connect(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before = cpu_seconds(worker)
        for _ in range(requests):
            sock.sendall(HELLO)
            sock.recv(1000)
        return (cpu_seconds(worker) - before) / requests


@dataclass
class Cost:
    memory: float
    without: float
    among: float


def measure(count: int) -> Cost:
    descriptors(count)
    with serve("--keep-alive", "1h") as server:
        each = memory(server, count)
        without, among = [], []
        for _ in range(ROUNDS):
            without.append(cpu(server))
            with idle(server, count):
                among.append(cpu(server))
        # The least of each: what else runs on a machine only ever adds to it.
        return Cost(each, min(without), min(among))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    count = parser.parse_args().connections
    cost = measure(count)
    print(f"{count} idle connections: {cost.memory / 1024:.2f} KiB of resident memory each, at most {MEMORY / 1024:g}")
    print(
        f"CPU of a request: {cost.without * 1e6:.1f} us without them, {cost.among * 1e6:.1f} us among them, "
        f"{cost.among / cost.without - 1:+.1%}, at most {CPU - 1:+.0%}"
    )
    good = cost.memory <= MEMORY and cost.among <= cost.without * CPU
    print("met" if good else "NOT MET")
    return not good


if __name__ == "__main__":
    sys.exit(main())
