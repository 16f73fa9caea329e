"""slowhttptest against one worker: `python -m tests.wire.slowhttptest [--connections 500] [--seconds 40]`

Slow heads (-H), slow bodies (-B) and slow readers (-X), one after the other, with deadlines shorter than the default
ones, so that a run takes no minutes. Meanwhile a client of our own asks ten times a second. The verdict: each of its
requests answered within 0.2 s, no connection of the attack older than its deadline, the service available throughout.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.harness import PATIENCE, Server, eventually
from tests.wire.tools import NotHere, ask, descriptors, serve, tool, worker_of

#: What a new client may wait, and how much later than at its deadline a connection may be closed (seconds).
WAIT = 0.2
GRACE = 2.0

#: What is set for heads, bodies, readers and idle connections, in seconds.
DEADLINE = 5.0

ATTACKS = {
    "-H": ("slow heads", "/hello", ["-i", "2", "-x", "24"]),
    "-B": ("slow bodies", "/count", ["-i", "2", "-s", "8192", "-x", "10"]),
    # Far larger than what the system keeps for a client; a file, as downloads are.
    "-X": ("slow readers", "/file?100000000", ["-k", "1", "-n", "5", "-z", "32", "-w", "512", "-y", "1024"]),
}


@dataclass
class Verdict:
    """`waits` of our client; `eldest`: seconds that a connection of the attack was open at most."""

    name: str
    deadline: float
    waits: list[float]
    eldest: float
    most: int
    available: bool

    @property
    def good(self) -> bool:
        return max(self.waits) <= WAIT and self.eldest <= self.deadline * 1.25 + GRACE and self.available

    def __str__(self) -> str:
        waits = sorted(self.waits)
        return (
            f"{self.name}: {len(waits)} requests meanwhile, median {waits[len(waits) // 2] * 1000:.1f} ms, worst "
            f"{waits[-1] * 1000:.1f} ms; {self.most} connections at once, the eldest {self.eldest:.1f} s; slowhttptest "
            f"says: service {'available throughout' if self.available else 'NOT AVAILABLE'}: "
            f"{'met' if self.good else 'NOT MET'}"
        )


class Ages:
    """How long the worker's connections are open, by the client's port."""

    def __init__(self, worker: psutil.Process) -> None:
        self._worker = worker
        self._since: dict[int, float] = {}
        self.eldest = 0.0
        self.most = 0

    def look(self) -> None:
        now = time.monotonic()
        open_now = {c.raddr.port for c in self._worker.net_connections("tcp4") if c.raddr}
        self._since = {port: self._since.get(port, now) for port in open_now}
        self.eldest = max([self.eldest, *(now - since for since in self._since.values())])
        self.most = max(self.most, len(open_now))


def attack(server: Server, flag: str, connections: int, seconds: int, deadline: float) -> Verdict:
    name, path, more = ATTACKS[flag]
    waits: list[float] = []
    ages = Ages(worker_of(server))
    with tempfile.TemporaryDirectory() as folder:
        command = [tool("slowhttptest"), flag, "-g", "-o", f"{folder}/report", "-c", str(connections), "-r", "200"]
        command += ["-l", str(seconds), "-p", "3", "-u", f"http://127.0.0.1:{server.port}{path}", *more]
        with open(f"{folder}/output", "wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
            try:
                while process.poll() is None:
                    waits.append(ask(server))
                    ages.look()
                    time.sleep(0.1)  # prefork: ok (the rhythm of asking)
            finally:
                process.kill()
                process.wait(PATIENCE)
        # Its columns: Seconds,Closed,Pending,Connected,Service Available; the last one is the number that it shows.
        with Path(f"{folder}/report.csv").open() as file:
            rows = [row for row in csv.reader(file) if row and row[0].strip().isdigit()]
        available = bool(rows) and all(int(row[4]) > 0 for row in rows)
    eventually(lambda: not [c for c in worker_of(server).net_connections("tcp4") if c.raddr], "all are gone")
    return Verdict(name, deadline, waits, ages.eldest, ages.most, available)


def run(connections: int, seconds: int, deadline: float = DEADLINE) -> list[Verdict]:
    descriptors(connections)
    flags = ("--header-timeout", "--body-timeout", "--send-timeout", "--keep-alive")
    with serve(*(word for flag in flags for word in (flag, str(deadline)))) as server:
        for _ in range(20):
            ask(server)
        return [attack(server, flag, connections, seconds, deadline) for flag in ATTACKS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=40)
    options = parser.parse_args()
    try:
        verdicts = run(options.connections, options.seconds)
    except NotHere as missing:
        print(f"{missing}: nothing was measured")
        return 1
    for verdict in verdicts:
        print(verdict)
    return not all(verdict.good for verdict in verdicts)


if __name__ == "__main__":
    sys.exit(main())
