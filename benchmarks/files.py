"""python -m benchmarks.files: a large file, and a stream of small pieces, here and elsewhere, through Django.

The file is a FileResponse, beside what nginx (if it is installed) needs to send the same file itself; the stream is a
StreamingHttpResponse of 8 KiB pieces. One download at a time, servers in turns, CPU time of all their processes.

The stream's client is wrk. One in Python takes chunks apart more slowly than they come: what a server needs is then
above all how it waits for that client (with it, ours needed 0.55 of gunicorn's, and 0.34 with wrk or curl).
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks import command, cpu, load, transfer
from benchmarks.applications import APPLICATIONS
from benchmarks.compare import install
from benchmarks.environment import say
from benchmarks.processes import Running, StartError
from benchmarks.servers import OURS, SERVERS, Server, Target

_MIB = 1024 * 1024
_NGINX = """
daemon off;
{user}
worker_processes 1;
error_log {folder}/nginx-error.log crit;
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen {address};
        root {folder};
        location / {{ return 200; }}
        location /file {{ alias {folder}/file; }}
    }}
}}
"""


class Kind(NamedTuple):
    """`bar`: what is wanted, in units of what `peer` needs."""

    name: str
    target: str
    peer: str
    bar: float
    servers: tuple[str, ...]


_FILE = Kind("file", "/file", "nginx", 1.3, (OURS, "nginx", "gunicorn-sync", "bjoern", "granian"))
_STREAM = Kind("stream", "/stream", "gunicorn-sync", 0.5, (OURS, "gunicorn-sync", "bjoern", "granian"))


def _nginx(target: Target) -> list[str | Path]:
    configuration = target.folder / "nginx.conf"
    # Its workers would be somebody else's, who cannot read the folder.
    user = "" if os.geteuid() else "user root;"
    configuration.write_text(_NGINX.format(folder=target.folder, address=target.address, user=user))
    return ["nginx", "-c", configuration, "-e", target.folder / "nginx-error.log"]


def main() -> None:
    options = _options()
    command.prepare()
    try:
        load.require_wrk()
    except load.LoadError as error:
        sys.exit(str(error))
    names = {name for kind in (_FILE, _STREAM) for name in kind.servers}
    installed, versions = install([server.name for server in SERVERS if server.name in names])
    servers = {server.name: server for server in installed}
    if shutil.which("nginx"):
        servers["nginx"] = Server("nginx", "nginx", _nginx)
    else:
        say("nginx is not here, and is skipped: apt-get install nginx-light")
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
            folder = Path(name)
            with (folder / "file").open("wb") as file:
                file.truncate(options.file * _MIB)  # sparse: it is the server that is measured, and not the disk
            for kind, size in ((_FILE, options.file), (_STREAM, options.stream)):
                chosen = [servers[name] for name in kind.servers if name in servers]
                costs = _rounds(kind, size, chosen, options.rounds, folder)
                _print(kind, size, costs, versions)
    except (StartError, load.LoadError, OSError, http.client.HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


def _rounds(kind: Kind, size: int, servers: list[Server], rounds: int, folder: Path) -> dict[str, list[float]]:
    application = replace(
        next(application for application in APPLICATIONS if application.name == "middleware"),
        environ={"BENCH_FILE": str(folder / "file"), "BENCH_STREAM": str(size * _MIB)},
    )
    costs: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(1, rounds + 1):
        for server in servers:
            with server.serve(application, folder) as running:
                _check(running.connection, kind, size)
                cost = _of_stream(running) if kind is _STREAM else transfer.cost(running, kind.target, least=1)
            costs[server.name].append(cost)
            say(f"round {number}: {kind.name}, {server.name} {cost * 1e3:.1f} ms")
    return costs


def _of_stream(running: Running) -> float:
    """CPU seconds for one download; the one that is not at its end counts for nothing."""
    before = cpu.snapshot(running.pid)
    seen = load.run(running.port, _STREAM.target, headers="constant", connection="keepalive", connections=1, seconds=3)
    spent = cpu.growth(before, cpu.snapshot(running.pid)).total
    if not seen.requests or seen.errors:
        raise load.LoadError(f"{seen.requests} whole downloads, {seen.errors or 'no'} errors")
    return spent / seen.requests / 1e9


def _check(connect: Callable[[float], http.client.HTTPConnection], kind: Kind, size: int) -> None:
    connection = connect(60.0)
    try:
        found = transfer.transfer(connection, kind.target)
    finally:
        connection.close()
    if found != size * _MIB:
        raise StartError(f"{found} bytes came of {size} MiB")


def _print(kind: Kind, size: int, costs: dict[str, list[float]], versions: dict[str, str]) -> None:
    print(f"{kind.name} of {size} MiB: CPU of one download, median of {len(costs[OURS])}")
    ours = statistics.median(costs[OURS])
    for name, rounds in sorted(costs.items(), key=lambda item: statistics.median(item[1])):
        median = statistics.median(rounds)
        spread = f"({min(rounds) * 1e3:,.0f}-{max(rounds) * 1e3:,.0f})"
        wanted = f"; at most {kind.bar} wanted" if name == kind.peer else ""
        version = versions.get(name, "")
        print(f"{name + ' ' + version:26}{median * 1e3:>10,.1f} ms {spread:>16}  ours / it {ours / median:.2f}{wanted}")
    print(flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=command.positive, default=2048, help="MiB; default: 2048")
    parser.add_argument("--stream", type=command.positive, default=100, help="MiB; default: 100")
    parser.add_argument("--rounds", type=command.positive, default=5, help="default: 5")
    return parser.parse_args()


if __name__ == "__main__":
    main()
