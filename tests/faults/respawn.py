"""How long from `kill -9` of a worker to its successor's first answer: `python -m tests.faults.respawn`.

For the demo project with one worker, so that only the successor can answer; ends with 1 if the median is over the bar.
"""

from __future__ import annotations

import argparse
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.demo import with_data
from tests.harness import ROOT, Server, eventually, send

BAR = 0.150  # seconds


def measure(times: int, pause: float) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "manage.py"), "runprefork"]  # as in production: without -X dev
        with Server(
            "--workers",
            "1",
            command=command,
            settings="demo_project.settings",
            environment=with_data(Path(folder) / "data"),
            errors="was ended by SIGKILL",
        ).ready() as server:
            found = []
            for number in range(times):
                (worker,) = server.full_strength(1)
                assert server.get("/whoami")[0] == 200
                time.sleep(pause)  # prefork: ok (it has lived for a while, or has not)
                began = time.monotonic()
                server.kill(signal.SIGKILL, worker)
                # Asked at once: the connection waits in the backlog, and nobody else can answer.
                _ask(server)
                found.append(time.monotonic() - began)
                server.wait_for("was ended by SIGKILL", times=number + 1)
                eventually(lambda worker=worker: worker not in server.processes(), "it is gone")
            return found


def _ask(server: Server) -> None:
    while True:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
            try:
                send(sock, "/whoami", "Connection: close")
                answer = sock.recv(65536)
            except ConnectionResetError:
                answer = b""
        if answer:
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            return
        # The dying worker had accepted it already.


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--pause", type=float, default=5.1, help="seconds that each worker lives before it is killed")
    options = parser.parse_args()
    found = measure(options.times, options.pause)
    median, worst = statistics.median(found), max(found)
    print(f"kill -9 to the successor's first answer, {options.times} times, each after {options.pause:g} s of life:")
    print(f"median {median * 1000:.0f} ms, worst {worst * 1000:.0f} ms, the bar is {BAR * 1000:.0f} ms")
    return 0 if median < BAR else 1


if __name__ == "__main__":
    sys.exit(main())
