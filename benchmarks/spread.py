"""python -m benchmarks.spread: how connections that were opened at one worker come to those that join it.

64 keep-alive connections are opened while there is one worker, TTIN makes them four, and each worker's share of the
requests is told for each half second from then on. The view waits for 2 ms, as for a database; `--app view` computes.
All workers have one core: on several the kernel may give one of them a core for itself, which answers twice as much.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import command, load
from benchmarks.applications import APPLICATIONS
from benchmarks.cores import cores
from benchmarks.load import LoadError
from benchmarks.processes import Running, StartError
from benchmarks.servers import OURS, SERVERS

WORKERS = 4
CONNECTIONS = 64
#: What each worker is to have of all requests once they have spread, in percent, and when that is to be (seconds).
LEAST, MOST = 15, 35
SOON = 2.0
WAITING = replace(
    next(each for each in APPLICATIONS if each.name == "hello"),
    name="waiting",
    wsgi=("benchmarks.site.tail", "application"),
    target="/slow?0.002",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spread", description=__doc__.partition("\n")[0])
    applications = {application.name: application for application in (WAITING, *APPLICATIONS)}
    parser.add_argument("--app", default="waiting", choices=applications)
    parser.add_argument("--rounds", type=command.positive, default=3)
    parser.add_argument("--seconds", type=command.positive, default=4)
    options = parser.parse_args()
    command.prepare()
    application = applications[options.app]
    ours = next(server for server in SERVERS if server.name == OURS)
    try:
        load.require_wrk()
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            status = Path(folder) / "status"
            server = replace(ours, command=lambda target: [*ours.command(target), "--status-bind", f"unix:{status}"])
            for _ in range(options.rounds):
                with server.serve(application, Path(folder)) as running:
                    _watch(running, application.target, status, options.seconds)
    except (LoadError, StartError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


def _watch(running: Running, target: str, status: Path, seconds: int) -> None:
    wrk = subprocess.Popen(
        [
            *cores().load,
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{seconds + 30}s",
            f"http://127.0.0.1:{running.port}{target}",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        while sum(_requests(status).values()) < 10 * CONNECTIONS:
            time.sleep(0.02)
        for workers in range(2, WORKERS + 1):
            os.kill(running.pid, signal.SIGTTIN)  # of several that come at once one is left
            while len(_requests(status)) < workers:
                time.sleep(0.01)
        began = time.monotonic()
        first = before = _requests(status)
        while (now := time.monotonic()) < began + seconds - 0.5:
            time.sleep(0.5)
            after = _requests(status)
            _tell(f"{now + 0.5 - began:4.1f} s", before, after, 0.5)
            if now - began < SOON:
                first = after
            before = after
        shares = _tell("  then", first, before, time.monotonic() - began - SOON)
        within = shares[0] >= LEAST and shares[-1] <= MOST
        print(f"after {SOON:g} s each worker has {LEAST} to {MOST} % of them: {'yes' if within else 'no'}")
    finally:
        wrk.kill()
        wrk.wait()


def _tell(when: str, before: dict[int, int], after: dict[int, int], seconds: float) -> list[float]:
    """Print the shares of what was answered between the two, and return them (percent), the smallest first."""
    counts = [after[pid] - before.get(pid, 0) for pid in after]
    shares = sorted(100 * count / max(1, sum(counts)) for count in counts)
    print(f"{when}: {sum(counts) / seconds:6.0f} requests/s,", *(f"{share:5.1f} %" for share in shares))
    return shares


def _requests(status: Path) -> dict[int, int]:
    """By the pid of each worker."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(status))
        sock.sendall(b"GET /status.json HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    workers = json.loads(answer.partition(b"\r\n\r\n")[2])["workers"]
    return {worker["pid"]: worker["requests"] for worker in workers if worker["state"] != "booting"}


if __name__ == "__main__":
    main()
