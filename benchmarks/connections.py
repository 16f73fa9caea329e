"""python -m benchmarks.connections: what idle keep-alive connections cost, in memory and in CPU per request."""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import browser, command, cpu, load
from benchmarks.applications import APPLICATIONS
from benchmarks.compare import install
from benchmarks.environment import say
from benchmarks.load import LoadError
from benchmarks.measure import CONNECTIONS
from benchmarks.processes import Running, StartError
from benchmarks.servers import SERVERS, Server

# Those with a loop that can wait for many clients at once.
_DEFAULT = ["django-prefork", "bjoern", "granian"]
_COUNTS = "0,1000,10000"
# A server that answers nobody for so long has all the connections it wants.
_PATIENCE = 3.0
# One that looks at all its connections for each new one takes minutes for 10,000.
_OPENING = 60.0
# Descriptors beside those of the idle connections: the load's, logs, libraries.
_OTHERS = 200
_HEADINGS = ("idle", "opened", "kept", "bytes each", "CPU us/request", "ratio")


class Cost(NamedTuple):
    """`opened` of the connections that were asked for, `kept` until the end; bytes of each; CPU seconds a request."""

    opened: int
    kept: int
    memory: float
    cpu: float


def main() -> None:
    options = _options()
    command.prepare()
    try:
        load.require_wrk()
        counts = _possible(options.counts)
        servers, versions = install(options.servers)
        print(
            f"hello-world WSGI beside idle connections; 1 worker, {CONNECTIONS} busy connections, "
            f"median of {options.rounds} x {options.seconds} s\n"
        )
        print("server".ljust(28), *(word.rjust(14) for word in _HEADINGS))
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            for server in servers:
                costs = _rounds(server, counts, options, Path(folder))
                _print(f"{server.name} {versions[server.distribution]}", costs)
    except LoadError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


def _rounds(server: Server, counts: list[int], options: argparse.Namespace, folder: Path) -> dict[int, list[Cost]]:
    """With few and with many connections in turns, as noise comes and goes."""
    costs: dict[int, list[Cost]] = {count: [] for count in counts}
    for number in range(1, options.rounds + 1):
        for count in counts:
            try:
                cost = _measure(server, count, options.seconds, folder)
            except (StartError, LoadError) as error:
                say(f"round {number}: {server.name}, {count} connections: {error}")
            else:
                costs[count].append(cost)
                say(f"round {number}: {server.name}, {count} connections {cost.cpu * 1e6:.1f} us")
    return costs


def _print(name: str, costs: dict[int, list[Cost]]) -> None:
    alone = statistics.median(cost.cpu for cost in costs[0]) if costs.get(0) else None
    for count, rounds in costs.items():
        if rounds:
            opened, kept, memory, spent = (statistics.median(column) for column in zip(*rounds, strict=True))
            cells = (
                *(f"{count:,}", f"{opened:,.0f}", f"{kept:,.0f}"),
                f"{memory:,.0f}" if count else "",
                f"{spent * 1e6:.1f}",
                f"{spent / alone:.2f}" if alone else "",
            )
            print(name.ljust(28), *(cell.rjust(14) for cell in cells), flush=True)


def _measure(server: Server, count: int, seconds: int, folder: Path) -> Cost:
    hello = next(application for application in APPLICATIONS if application.name == "hello")
    with server.serve(hello, folder) as running:

        def press(seconds: int) -> load.Load:
            shape = {"headers": "constant", "connection": "keepalive"}
            return load.run(running.port, hello.target, **shape, connections=CONNECTIONS, seconds=seconds)

        press(1)
        lean = _memory(running)
        idle = _open(running.port, count)
        try:
            memory = (_memory(running) - lean) / max(1, len(idle))
            before = cpu.snapshot(running.pid)
            seen = press(seconds)
            spent = cpu.growth(before, cpu.snapshot(running.pid))
            kept = sum(map(_is_open, idle))
        finally:
            for sock in idle:
                sock.close()
    if not seen.requests:
        raise LoadError(f"no request was answered beside the {len(idle)} that it took")
    return Cost(len(idle), kept, memory, spent.total / seen.requests / 1e9)


def _open(port: int, count: int) -> list[socket.socket]:
    """As many connections as the server takes in `_OPENING` seconds; each has had an answer, and may have more."""
    request = browser.fresh(browser.head("constant"))
    sockets: list[socket.socket] = []
    deadline = time.monotonic() + _OPENING
    while len(sockets) < count and time.monotonic() < deadline:
        sock = socket.socket()
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(("127.0.0.1", port))
            sock.sendall(request)
            answered = sock.recv(4096).startswith(b"HTTP/1.1 200")
        except OSError:
            answered = False
        if not answered:
            sock.close()
            break
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


def _is_open(sock: socket.socket) -> bool:
    try:
        while sock.recv(4096):
            pass  # the rest of its answer
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _memory(running: Running) -> int:
    """Bytes resident, of all its processes; what several share is counted once (proc(5): Pss)."""
    total = 0
    for pid in running.family():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _possible(counts: list[int]) -> list[int]:
    """Raise the limit of open files, the servers' too, who inherit it; leave out what is still beyond it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    for count in counts:
        if count + _OTHERS > limit:
            say(f"{count} connections are skipped: ulimit -n allows {limit} files")
    return [count for count in counts if count + _OTHERS <= limit]


def _counts(text: str) -> list[int]:
    return sorted({int(word) for word in text.split(",")})


def _options() -> argparse.Namespace:
    known = [server.name for server in SERVERS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.connections", description="What idle keep-alive connections cost."
    )
    text = f"servers: {', '.join(known)}; default: {','.join(_DEFAULT)}"
    parser.add_argument("--servers", type=command.names(known), default=_DEFAULT, metavar="A,B", help=text)
    parser.add_argument("--counts", type=_counts, default=_counts(_COUNTS), help=f"of connections; default: {_COUNTS}")
    parser.add_argument("--rounds", type=command.positive, default=3, help="default: 3")
    parser.add_argument("--seconds", type=command.positive, default=3, help="of load, whole; default: 3")
    return parser.parse_args()


if __name__ == "__main__":
    main()
