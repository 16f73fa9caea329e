"""python -m benchmarks.spread: how connections that were opened at one worker come to those that join it.

64 keep-alive connections are opened while there is one worker, TTIN makes them four, and each worker's share of the
requests is told for each half second from then on.
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
from benchmarks.load import LoadError
from benchmarks.processes import Running, StartError
from benchmarks.servers import OURS, SERVERS

WORKERS = 4
CONNECTIONS = 64
#: What each worker is to have of all requests once they have spread, in percent.
LEAST, MOST = 15, 35


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spread", description=__doc__.partition("\n")[0])
    parser.add_argument("--app", default="view", choices=[application.name for application in APPLICATIONS])
    parser.add_argument("--rounds", type=command.positive, default=3)
    parser.add_argument("--seconds", type=command.positive, default=4)
    options = parser.parse_args()
    command.prepare(pin=False)
    application = next(each for each in APPLICATIONS if each.name == options.app)
    ours = next(server for server in SERVERS if server.name == OURS)
    try:
        load.require_wrk()
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            status = Path(folder) / "status"
            server = replace(ours, command=lambda target: [*ours.command(target), "--status-bind", f"unix:{status}"])
            for _ in range(options.rounds):
                with server.serve(application, Path(folder), pin=False) as running:
                    _watch(running, application.target, status, options.seconds)
    except (LoadError, StartError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


def _watch(running: Running, target: str, status: Path, seconds: int) -> None:
    wrk = subprocess.Popen(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds + 30}s", f"http://127.0.0.1:{running.port}{target}"],
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
        before = _requests(status)
        spread_after = None
        while (now := time.monotonic()) < began + seconds - 0.5:
            time.sleep(0.5)
            after = _requests(status)
            counts = [after[pid] - before.get(pid, 0) for pid in after]
            shares = sorted(100 * count / max(1, sum(counts)) for count in counts)
            print(
                f"{now + 0.5 - began:4.1f} s: {sum(counts) * 2:6} requests/s,", *(f"{share:5.1f} %" for share in shares)
            )
            if spread_after is None and shares[0] >= LEAST and shares[-1] <= MOST:
                spread_after = now - began
            before = after
        told = "never" if spread_after is None else f"from {spread_after:.1f} s on"
        print(f"      each worker has {LEAST} to {MOST} % of them: {told}")
    finally:
        wrk.kill()
        wrk.wait()


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
