"""python -m benchmarks.growth: how the cost of a request grows with workers, connections, headers and bodies.

Each kind of growth should be flat or linear. A table for each, with what one more unit costs, and a verdict.
"""

from __future__ import annotations

import argparse
import http.client
import json
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import command, environment, load, report, transfer
from benchmarks.applications import APPLICATIONS, Application
from benchmarks.environment import say
from benchmarks.load import LoadError
from benchmarks.measure import CONNECTIONS, Shape, measure
from benchmarks.processes import StartError
from benchmarks.servers import OURS, SERVERS

_KIB, _MIB = 1024, 1024 * 1024
_SIZES = (0, 64 * _KIB, _MIB, 10 * _MIB, 100 * _MIB)
# More than that between the cheapest and the dearest is not flat; between two slopes, not linear.
_FLAT = 1.3
_LINEAR = 1.5
_HELLO = next(application for application in APPLICATIONS if application.name == "hello")
_SERVER = next(server for server in SERVERS if server.name == OURS)


@dataclass(frozen=True)
class Growth:
    """`points`: how much of it. `cost`: of one point, in CPU seconds a request. `unit`: what a slope is said of."""

    name: str
    title: str
    points: tuple[int, ...]
    cost: Callable[[int, int, Path], float]
    unit: int = 0
    unit_name: str = ""


def _workers(count: int, seconds: int, folder: Path) -> float:
    # As many connections for each: a worker with fewer sleeps more often between two requests, wherever it runs.
    shape = Shape("varying", "keepalive", seconds, connections=CONNECTIONS * count, workers=count)
    return measure(_SERVER, _HELLO, shape, folder).cpu


def _connections(count: int, seconds: int, folder: Path) -> float:
    # Opening them is a part of the cost: the more there are, the longer the run, so that it stays a small one.
    shape = Shape("varying", "keepalive", max(seconds, count // 1000), connections=count)
    return measure(_SERVER, _HELLO, shape, folder).cpu


def _headers(count: int, seconds: int, folder: Path) -> float:
    head = "".join(f"X-Field-{number}: <id><id>\n" for number in range(count))
    file = folder / f"fields-{count}"
    file.with_suffix(".txt").write_text(f"GET <target> HTTP/1.1\nHost: localhost\nConnection: <connection>\n{head}")
    return measure(_SERVER, _HELLO, Shape(str(file), "keepalive", seconds), folder).cpu


def _bodies(kind: str) -> Callable[[int, int, Path], float]:
    def cost(size: int, seconds: int, folder: Path) -> float:
        with (folder / str(size)).open("wb") as file:
            file.truncate(size)
        application: Application = replace(
            _HELLO,
            wsgi=("benchmarks.site.growth", "application"),
            target="/bytes?6",
            environ={"BENCH_FILES": str(folder)},
        )
        upload = bytes(size) if kind == "upload" else None
        with _SERVER.serve(application, folder) as running:
            return transfer.cost(running, f"/{kind}?{size}", upload=upload, seconds=seconds)

    return cost


GROWTHS = (
    Growth("workers", "workers on one core, 16 connections for each", (1, 2, 4), _workers),
    Growth("connections", "busy connections", (1, 16, 100, 1000, 10_000), _connections),
    Growth("headers", "header fields, each of them new", (0, 10, 30, 90), _headers, 1, "field"),
    Growth("upload", "bytes of the request's body", _SIZES, _bodies("upload"), _MIB, "MiB"),
    Growth("bytes", "bytes of an answer in one piece", _SIZES, _bodies("bytes"), _MIB, "MiB"),
    Growth("list", "bytes of an answer that is a list of 8 KiB pieces", _SIZES, _bodies("list"), _MIB, "MiB"),
    Growth("generator", "bytes of a stream of 8 KiB pieces, chunked", _SIZES, _bodies("generator"), _MIB, "MiB"),
    Growth("file", "bytes of a file", _SIZES, _bodies("file"), _MIB, "MiB"),
)


def slopes(growth: Growth, costs: Sequence[float]) -> list[float]:
    """What one more unit costs, between each point and the next."""
    steps = zip(growth.points, growth.points[1:], costs, costs[1:], strict=False)
    return [(after - before) / (more - less) * growth.unit for less, more, before, after in steps]


def verdict(growth: Growth, costs: Sequence[float]) -> str:
    """The words of the last column."""
    if not growth.unit:
        factor = max(costs) / min(costs)
        return f"flat ({factor:.2f})" if factor <= _FLAT else f"not flat: {factor:.2f} between cheapest and dearest"
    *_, before, last = slopes(growth, costs)
    factor = last / before if before > 0 else 0.0
    return f"linear ({factor:.2f})" if factor <= _LINEAR else f"faster than linear: {factor:.2f} times the step before"


def main() -> None:
    options = _options()
    command.prepare()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = [growth for growth in GROWTHS if growth.name in options.only]
    found = {}
    try:
        load.require_wrk()
        environment.prepare()
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            for growth in chosen:
                costs = _measure(growth, options.rounds, options.seconds, Path(folder))
                found[growth.name] = dict(zip(growth.points, costs, strict=True))
                print(table(growth, costs), flush=True)
    except (LoadError, StartError, OSError, http.client.HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    if options.json:
        options.json.write_text(json.dumps({"machine": report.machine(), "cpu seconds": found}, indent=1) + "\n")


def _measure(growth: Growth, rounds: int, seconds: int, folder: Path) -> list[float]:
    """Small and large in turns, as noise comes and goes; medians."""
    costs: dict[int, list[float]] = {point: [] for point in growth.points}
    for number in range(1, rounds + 1):
        for point in growth.points:
            costs[point].append(growth.cost(point, seconds, folder))
            say(f"round {number}: {growth.name} {point:,} {costs[point][-1] * 1e6:,.1f} us")
    return [statistics.median(each) for each in costs.values()]


def table(growth: Growth, costs: Sequence[float]) -> str:
    lines = [f"{growth.title}: {verdict(growth, costs)}"]
    more = ["", *(f"{slope * 1e6:,.1f} us more for a {growth.unit_name}" for slope in slopes(growth, costs))]
    for point, cost, text in zip(growth.points, costs, more if growth.unit else [""] * len(costs), strict=True):
        lines.append(f"{point:>14,}{cost * 1e6:>14,.1f} us  {text}".rstrip())
    return "\n".join([*lines, ""])


def _options() -> argparse.Namespace:
    known = [growth.name for growth in GROWTHS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=command.names(known), default=known, metavar="A,B", help=", ".join(known))
    parser.add_argument("--rounds", type=command.positive, default=3, help="default: 3")
    parser.add_argument("--seconds", type=command.positive, default=2, help="of one point, whole; default: 2")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
