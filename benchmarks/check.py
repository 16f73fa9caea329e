"""python -m benchmarks.check: has a request become dearer since the last time, on this machine?

What counts is the ratio to gunicorn's sync worker, which holds where microseconds do not. The first run records it;
later ones compare with that, and end with status 1 beyond 15 %. `--record` sets a new mark.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import command, environment, load, report
from benchmarks.applications import APPLICATIONS
from benchmarks.compare import compare, install
from benchmarks.load import LoadError
from benchmarks.measure import Shape, find, ratio
from benchmarks.servers import OURS

PEER = "gunicorn-sync"
#: How much dearer, relative to the mark, is a regression.
TOLERANCE = 0.15
_APPLICATIONS = ("hello", "middleware")
_SHAPE = Shape("varying", "keepalive", 2)


def main() -> None:
    options = _options()
    command.prepare()
    marks = _read(options.marks)
    known = marks.get(_machine(), {})
    try:
        load.require_wrk()
        found = {name: _measure(name, options.rounds) for name in _APPLICATIONS}
        worse = [name for name in found if name in known and found[name] > known[name] * (1 + TOLERANCE)]
        for name in worse:
            # A moment of noise is no regression: it is believed when it is seen again, over more rounds.
            found[name] = min(found[name], _measure(name, 2 * options.rounds))
    except LoadError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")
    failed = False
    for name, figure in found.items():
        if name not in known or options.record:
            print(f"{name}: {figure:.3f} of what gunicorn needs; recorded in {options.marks}")
            continue
        change = figure / known[name] - 1
        failed = failed or change > TOLERANCE
        words = "a regression" if change > TOLERANCE else "as before" if change > -TOLERANCE else "better: --record it"
        print(f"{name}: {figure:.3f} of what gunicorn needs, {known[name]:.3f} recorded, {change:+.0%}: {words}")
    marks[_machine()] = {**found, **({} if options.record else known)}
    options.marks.parent.mkdir(parents=True, exist_ok=True)
    options.marks.write_text(json.dumps(marks, indent=1) + "\n")
    sys.exit(1 if failed else 0)


def _measure(name: str, rounds: int) -> float:
    """Raises `LoadError`."""
    servers, versions = install([OURS, PEER])
    application = next(application for application in APPLICATIONS if application.name == name)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        comparison = compare(servers, versions, application, _SHAPE, rounds, Path(folder))
    peer = find(comparison.rows, PEER)
    found = ratio(find(comparison.rows, OURS), peer) if peer else None
    if found is None:
        faults = [fault for row in comparison.rows for fault in row.verdict.faults]
        raise LoadError(f"no figure for {name}: {faults or comparison.skipped}")
    return found


def _machine() -> str:
    """Marks of another machine, or of another Python, say nothing here."""
    return ", ".join(f"{key} {value}" for key, value in report.machine().items() if key != "kernel")


def _read(file: Path) -> dict[str, dict[str, float]]:
    try:
        marks: dict[str, dict[str, float]] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        sys.exit(f"{file} cannot be read ({error}): remove it, and what is measured now becomes the mark")
    return marks


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="make what is measured now the mark")
    parser.add_argument("--rounds", type=command.positive, default=5, help="default: 5")
    default = environment.ROOT / "benchmarks" / "results" / "marks.json"
    parser.add_argument("--marks", type=Path, default=default, metavar="FILE", help="default: in benchmarks/results/")
    return parser.parse_args()


if __name__ == "__main__":
    main()
