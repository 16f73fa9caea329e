"""python -m benchmarks.quick: hello-world here and with gunicorn's sync worker; exit status 1 beyond the bar."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import command, load
from benchmarks.applications import APPLICATIONS
from benchmarks.compare import compare, install
from benchmarks.load import LoadError
from benchmarks.measure import Shape, find, ratio
from benchmarks.servers import OURS

# What was set out to be reached, in units of what gunicorn costs.
BAR = 0.15
PEER = "gunicorn-sync"
_ROUNDS = 3
_SECONDS = 3


def main() -> None:
    command.prepare()
    try:
        load.require_wrk()
        servers, versions = install([OURS, PEER])
        hello = next(application for application in APPLICATIONS if application.name == "hello")
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            shape = Shape("constant", "keepalive", _SECONDS)
            comparison = compare(servers, versions, hello, shape, _ROUNDS, Path(folder))
    except LoadError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")
    ours, peer = find(comparison.rows, OURS), find(comparison.rows, PEER)
    for row in (ours, peer):
        if row is None or not row.rounds or row.verdict.faults:
            sys.exit(f"no figure: {row.verdict.faults if row else comparison.skipped}")
        low, high = row.spread
        print(f"{row.name} {row.version}: {row.cpu * 1e6:.1f} us a request ({low * 1e6:.1f}-{high * 1e6:.1f})")
    assert peer is not None
    result = ratio(ours, peer)
    assert result is not None
    print(f"ratio: {result:.3f}, at most {BAR} wanted")
    sys.exit(0 if result <= BAR else 1)


if __name__ == "__main__":
    main()
