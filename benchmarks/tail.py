"""python -m benchmarks.tail: how long fast requests take beside slow ones.

Kept connections, each with a fast request every 50 ms whether the one before was answered or not (an open loop: what
waits is counted as waiting); beside them slow requests, one at a time and without pause. A server that hands requests
to whoever is free answers the fast ones as if nothing were; one that has given a connection to a worker lets it wait.

The slow requests go round a few kept connections: with one alone it would be luck whether its worker has none of the
fast connections or all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from benchmarks import command
from benchmarks.applications import Application
from benchmarks.compare import install
from benchmarks.environment import say
from benchmarks.processes import StartError
from benchmarks.servers import SERVERS

_APPLICATION = Application(
    "tail",
    "fast and slow requests",
    ("benchmarks.site.tail", "application"),
    "benchmarks.site.settings",
    b"hello",
    probe="hello-probe",
)
_INTERVAL = 0.05
_SLOW_CONNECTIONS = 10
# A request not answered in that time counts as that long, and its connection is given up.
_PATIENCE = 5.0


class Tail(NamedTuple):
    """Seconds; `slow` counts the slow requests that were answered, `again` connections that had to be made anew."""

    p50: float
    p99: float
    most: float
    fast: int
    slow: int
    again: int


class Client:
    """One connection, made anew when the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.connects = 0

    async def get(self, target: str) -> bool:
        """Whether it was answered. Where the server has closed the connection, on a new one, as browsers do."""
        kept = self._streams is not None
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._get(target)
        except (ConnectionError, EOFError):
            self.close()
            return kept and await self.get(target)
        except (OSError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            self.close()
            return False

    async def _get(self, target: str) -> bool:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self.connects += 1
        reader, writer = self._streams
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, found, rest = head.partition(b"content-length:")
        await reader.readexactly(int(rest.partition(b"\r\n")[0]) if found else 0)
        if b"connection: close" in head or head.startswith(b"http/1.0"):
            self.close()
        return b" 200 " in head

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def main() -> None:
    options = _options()
    command.prepare(pin=False)  # several workers, on all cores, with the client among them
    servers, versions = install(options.servers)
    tails: dict[str, list[Tail]] = {server.name: [] for server in servers}
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            for number in range(1, options.rounds + 1):
                for server in servers:
                    try:
                        with server.serve(_APPLICATION, Path(folder), workers=options.workers, pin=False) as running:
                            tail = asyncio.run(_press(running.port, options.connections, options.slow, options.seconds))
                    except StartError as error:
                        say(f"{server.name} is skipped: {error}")
                        continue
                    tails[server.name].append(tail)
                    say(f"round {number}: {server.name} p99 {tail.p99 * 1000:.1f} ms")
    except KeyboardInterrupt:
        sys.exit("stopped")
    print(
        f"{options.connections} kept connections, a fast request every {_INTERVAL * 1000:.0f} ms on each, "
        f"one slow request of {options.slow} s at a time\n"
        f"{options.workers} workers, median of {options.rounds} x {options.seconds} s\n"
    )
    print(
        "server".ljust(32), *(word.rjust(10) for word in ("p50 ms", "p99 ms", "most ms", "fast", "slow", "reconnects"))
    )
    for server in sorted(servers, key=lambda server: _median([tail.p99 for tail in tails[server.name]])):
        if rounds := tails[server.name]:
            times = (f"{_median(column) * 1000:.1f}" for column in list(zip(*rounds, strict=True))[:3])
            counts = (f"{_median(column):.0f}" for column in list(zip(*rounds, strict=True))[3:])
            label = f"{server.name} {versions[server.distribution]}"
            print(label.ljust(32), *(cell.rjust(10) for cell in (*times, *counts)))


async def _press(port: int, connections: int, slow: float, seconds: float) -> Tail:
    begin = time.monotonic() + 0.5
    end = begin + seconds
    waits: list[float] = []
    slow_answered = 0

    async def fast(number: int) -> int:
        client = Client(port)
        await client.get("/")  # the connection is there before the clock starts
        due = begin + _INTERVAL * number / connections
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            answered = await client.get("/")
            waits.append(time.monotonic() - due if answered else _PATIENCE)
            due += _INTERVAL
        client.close()
        return client.connects - 1

    async def slowly() -> None:
        nonlocal slow_answered
        clients = [Client(port) for _ in range(_SLOW_CONNECTIONS)]
        for client in clients:
            await client.get("/")
        await asyncio.sleep(begin - time.monotonic())
        for client in cycle(clients):
            if time.monotonic() > end:
                break
            slow_answered += await client.get(f"/slow?{slow}")
        for client in clients:
            client.close()

    again, _ = await asyncio.gather(asyncio.gather(*(fast(number) for number in range(connections))), slowly())
    waits.sort()
    return Tail(
        p50=waits[len(waits) // 2],
        p99=waits[int(len(waits) * 0.99)],
        most=waits[-1],
        fast=len(waits),
        slow=slow_answered,
        again=sum(max(0, count) for count in again),
    )


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("inf")


def _options() -> argparse.Namespace:
    several = [server.name for server in SERVERS if server.several]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tail", description="How long fast requests take beside slow ones."
    )
    text = f"those that can have several workers: {', '.join(several)}; default: all"
    parser.add_argument("--servers", type=command.names(several), default=several, metavar="A,B", help=text)
    parser.add_argument("--workers", type=command.positive, default=3, help="default: 3")
    parser.add_argument("--connections", type=command.positive, default=20, help="with fast requests; default: 20")
    parser.add_argument("--slow", type=float, default=0.3, help="seconds of a slow request; default: 0.3")
    parser.add_argument("--rounds", type=command.positive, default=3, help="default: 3")
    parser.add_argument("--seconds", type=command.positive, default=5, help="of one round; default: 5")
    return parser.parse_args()


if __name__ == "__main__":
    main()
