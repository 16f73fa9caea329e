"""python -m benchmarks.price: what a feature costs a request, or a change: the same server with and without, in turns.

`--than FOLDER` compares with another checkout instead: what a change costs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import command, load
from benchmarks.applications import APPLICATIONS
from benchmarks.environment import PYTHON
from benchmarks.load import LoadError
from benchmarks.measure import CONNECTIONS, Shape, measure
from benchmarks.processes import StartError
from benchmarks.servers import OURS, SERVERS, Server, Target

#: What can be had, by name: the flags without it, the flags with it; FOLDER is one for its files.
FEATURES: dict[str, tuple[list[str], list[str]]] = {
    "waiting": (
        ["--handoff-after", "0", "--timeout", "0"],
        ["--handoff-after", "5ms", "--timeout", "30", "--slow-request", "1", "--queue-timeout", "10"],
    ),
    "handoff": (["--handoff-after", "0"], ["--handoff-after", "5ms"]),
    "status": ([], ["--status-bind", "127.0.0.1:0", "--health-path", "/-/health", "--server-timing", "on"]),
    "access-log": ([], ["--access-log", "FOLDER/access.log"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.price", description=__doc__.partition("\n")[0])
    parser.add_argument("feature", nargs="?", default="waiting", choices=FEATURES)
    parser.add_argument("--workers", type=command.positive, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=command.positive, default=7)
    parser.add_argument("--seconds", type=command.positive, default=2)
    parser.add_argument("--app", default="hello", choices=[application.name for application in APPLICATIONS])
    parser.add_argument("--than", type=Path, metavar="FOLDER", help="another checkout, to compare with")
    options = parser.parse_args()
    command.prepare()
    try:
        load.require_wrk()
        for workers in options.workers:
            _compare(options, workers)
    except (LoadError, StartError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


def _compare(options: argparse.Namespace, workers: int) -> None:
    application = next(each for each in APPLICATIONS if each.name == options.app)
    ours = next(server for server in SERVERS if server.name == OURS)
    without, with_it = FEATURES[options.feature]

    def flagged(flags: list[str]) -> Server:
        def command_of(target: Target) -> list[str | Path]:
            return [*ours.command(target), *(flag.replace("FOLDER", str(target.folder)) for flag in flags)]

        return replace(ours, command=command_of)

    def elsewhere(target: Target) -> list[str | Path]:
        return [PYTHON, options.than / "manage.py", *ours.command(target)[2:]]

    if options.than:
        names, sides = (str(options.than), "here"), (replace(ours, command=elsewhere), ours)
    else:
        names = (f"{options.feature} off", f"{options.feature} on")
        sides = (flagged(without), flagged(with_it))
    costs: tuple[list[float], list[float]] = ([], [])
    # So many for each worker: with few, how they happen to be spread over the workers makes more of a difference.
    shape = Shape("varying", "keepalive", options.seconds, connections=CONNECTIONS * workers, workers=workers)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        for round in range(options.rounds):
            # Each goes first every other time.
            for side in (0, 1) if round % 2 else (1, 0):
                costs[side].append(measure(sides[side], application, shape, Path(folder)).cpu * 1e6)
    medians = [statistics.median(each) for each in costs]
    for name, median, each in zip(names, medians, costs, strict=True):
        print(f"{workers} workers, {name}: {median:.2f} us a request ({min(each):.2f}-{max(each):.2f})")
    pairs = statistics.median(b - a for a, b in zip(*costs, strict=True))
    print(
        f"{workers} workers: {medians[1] - medians[0]:+.2f} us between the medians, {pairs:+.2f} us in the median pair"
    )


if __name__ == "__main__":
    main()
