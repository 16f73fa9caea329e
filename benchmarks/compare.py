"""python -m benchmarks.compare: what a request costs here, and what it costs elsewhere."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks import command, correct, environment, floor, load, report
from benchmarks.applications import APPLICATIONS, Application, make_demo_data
from benchmarks.environment import say
from benchmarks.load import LoadError
from benchmarks.measure import Round, Row, Shape, measure
from benchmarks.processes import StartError
from benchmarks.report import FLOOR, Comparison
from benchmarks.servers import OURS, OURS_LOGGING, SERVERS, Server


def main() -> None:
    options = _options()
    command.prepare()
    file = options.json or report.results("compare")
    try:
        load.require_wrk()
        servers, versions = install(options.servers, access_log=options.access_log)
        comparisons = []
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
            folder = Path(name)
            if "demo" in options.apps:
                make_demo_data(folder)
            applications = [application for application in APPLICATIONS if application.name in options.apps]
            for application, headers, connection in product(applications, options.headers, options.connection):
                shape = Shape(headers, connection, options.seconds)
                comparison = compare(servers, versions, application, shape, options.rounds, folder)
                comparisons.append(comparison)
                print(report.table(comparison), flush=True)
                report.write_json(file, comparisons, versions)  # what is done is not lost when the rest fails
    except LoadError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")
    say(f"written: {file}")
    if options.chart:
        _draw(file, options.chart)


def install(names: Sequence[str], *, access_log: bool = False) -> tuple[list[Server], dict[str, str]]:
    """The named servers that are there, and the versions of their distributions and of Django."""
    wanted = [server for server in SERVERS if server.name in names]
    if access_log:
        ours = next((place for place, server in enumerate(wanted, 1) if server.name == OURS), 0)
        wanted.insert(ours, OURS_LOGGING)  # beside what it is to be compared with
    requirements = [requirement for server in wanted for requirement in server.requirements]
    versions = environment.prepare(requirements, {server.distribution: server.hint for server in wanted})
    servers = [server for server in wanted if server.distribution in versions]
    for server in wanted:
        if server not in servers:
            say(f"{server.name} is skipped")
    named = {"django", *(server.distribution for server in servers)}
    return servers, {name: version for name, version in versions.items() if name in named}


def compare(
    servers: Sequence[Server],
    versions: dict[str, str],
    application: Application,
    shape: Shape,
    rounds: int,
    folder: Path,
) -> Comparison:
    """Each server is checked first; then they take turns, each round from a fresh start. Raises `LoadError`.

    Every other round goes the other way round, so that a machine that slows down meanwhile favours nobody.
    """
    comparison = Comparison(application, shape)
    say(f"-- {comparison.title}")
    bottom = Row(FLOOR, "")
    runners: list[tuple[Server, Row]] = []
    for server in servers:
        try:
            verdict = correct.check(server, application, shape.connection, folder)
        except (StartError, OSError, ValueError) as error:
            comparison.skipped[server.name] = str(error)
            say(f"{server.name} is skipped: {error}")
            continue
        runners.append((server, Row(server.name, versions[server.distribution], verdict)))
    comparison.rows = [bottom, *(row for _, row in runners)]
    for number in range(1, rounds + 1):
        bottom.rounds.append(Round(floor.measure(application, shape.headers, shape.seconds, folder)))
        for server, row in runners if number % 2 else reversed(runners):
            try:
                row.rounds.append(measure(server, application, shape, folder))
            except StartError as error:
                say(f"round {number}: {server.name} did not start: {error}")
            else:
                say(f"round {number}: {server.name} {row.rounds[-1].cpu * 1e6:.1f} us")
    return comparison


def _draw(results: Path, chart: Path) -> None:
    """In the environment: only there is matplotlib."""
    if "matplotlib" not in environment.prepare(["matplotlib"]):
        sys.exit("no chart without matplotlib")
    words = [str(environment.PYTHON), "-m", "benchmarks.chart", str(results.absolute()), str(chart.absolute())]
    subprocess.run(words, cwd=environment.ROOT, env=environment.variables(), check=True, timeout=120)
    say(f"drawn: {chart}")


def _options() -> argparse.Namespace:
    servers = [server.name for server in SERVERS]
    applications = [application.name for application in APPLICATIONS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="CPU time for one request, of all processes of the server, beside other servers.",
    )

    def listed(flag: str, known: Sequence[str], default: Sequence[str], text: str) -> None:
        text = f"{text}: {', '.join(known)}; default: {'all' if default is known else ','.join(default)}"
        parser.add_argument(flag, type=command.names(known), default=list(default), metavar="A,B", help=text)

    listed("--servers", servers, servers, "servers")
    listed("--apps", applications, applications, "applications")
    listed("--headers", load.HEADERS, ["varying"], "request headers, the same ones always or new ids in each")
    connections = list(load.CONNECTIONS)
    listed("--connection", connections, ["keepalive"], "connections that are kept, or one for each request")
    parser.add_argument("--rounds", type=command.positive, default=5, help="default: 5")
    parser.add_argument("--seconds", type=command.positive, default=3, help="of one round, whole; default: 3")
    parser.add_argument("--access-log", action="store_true", help="also ours with its access log on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: a new file in benchmarks/results/")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
