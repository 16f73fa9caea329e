"""An upload of 1 GiB: `python -m tests.wire.upload [--mib 1024] [--folder /var/tmp]`

One worker takes it, and nginx spools the same body to the same disk, in turns: the time from the client's first byte to
the moment at which the application is called. The worker's memory has to stay where it was, and the application has to
read what was sent.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness import read_answer
from tests.wire.proxies import Nginx
from tests.wire.tools import NotHere, ask, private, serve, tool, worker_of

MIB = 1024 * 1024
#: How much of nginx's speed ours has to be, and how much memory of its own the worker may need for it.
SPEED = 0.6
MEMORY = 4 * MIB
ROUNDS = 3

# nginx has the body in a file, and tells the server of the head alone: the application is called when all has come.
SPOOLS = "client_body_in_file_only clean; proxy_pass_request_body off; proxy_set_header Content-Length 0;"


def send(port: int, file: Path) -> tuple[float, dict[str, str]]:
    """Seconds until the application was called, and what it answered."""
    head = f"POST /sha256 HTTP/1.1\r\nHost: h\r\nContent-Length: {file.stat().st_size}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=300) as sock, file.open("rb") as body:
        began = time.monotonic()
        sock.sendall(head.encode())
        sock.sendfile(body)
        status, _, answer = read_answer(sock)
    assert status == 200, (status, answer)
    said = json.loads(answer)
    return float(said["called"]) - began, said


@contextlib.contextmanager
def watched(look: Callable[[], int]) -> Iterator[list[int]]:
    """What `look` says, every 10 ms while the block runs."""
    seen = [look()]
    end = threading.Event()

    def watch() -> None:
        while not end.wait(0.01):
            seen.append(look())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()


@dataclass
class Measured:
    """Bytes a second of each round; `memory`: bytes by which the worker's private memory grew at its peak."""

    size: int
    ours: list[float]
    nginx: list[float]
    memory: int

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.nginx) if self.nginx else 1.0


def made(path: Path, size: int) -> str:
    """A file of random bytes, and their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            piece = os.urandom(min(MIB, size - start))
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())  # or its way to the disk would be measured
    return digest.hexdigest()


def measure(size: int, folder: str | None, rounds: int = ROUNDS, beside: bool = True) -> Measured:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name)
        digest = made(path / "body", size)
        (path / "nginx").mkdir()
        flags = ("--spool-dir", str(path), "--limit-request-body", "0", "--spool-limit", "1t", "--timeout", "0")
        with serve(*flags) as server, contextlib.ExitStack() as stack:
            worker = worker_of(server)
            options = f"client_body_temp_path {path}/nginx; {SPOOLS}"
            upstream = f"127.0.0.1:{server.port}"
            nginx = stack.enter_context(Nginx(upstream, options, patience="600s")) if beside else None
            ask(server)
            send(server.port, path / "body")  # the first fills caches, and is not measured
            measured = Measured(size, [], [], 0)
            for _ in range(rounds):
                with watched(lambda: private(worker)) as memory:
                    seconds, said = send(server.port, path / "body")
                assert (said["size"], said["sha256"]) == (size, digest), said
                # Reading it in pieces of 1 MiB is the application's.
                measured.memory = max(measured.memory, max(memory) - memory[0])
                measured.ours.append(size / seconds)
                if nginx is not None:
                    measured.nginx.append(size / send(nginx.port, path / "body")[0])
            return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--folder", help="on the disk to be used; the system's temporary folder if not given")
    options = parser.parse_args()
    try:
        tool("nginx")
        beside = True
    except NotHere as missing:
        print(f"{missing}: only ours is measured")
        beside = False
    measured = measure(options.mib * MIB, options.folder, beside=beside)

    def shown(speeds: list[float]) -> str:
        return ", ".join(f"{speed / MIB:.0f}" for speed in speeds) + " MiB/s"

    print(f"{options.mib} MiB, SHA-256 equal; the worker's memory grew by {measured.memory / MIB:.1f} MiB at most")
    print(f"ours:  {shown(measured.ours)}")
    if beside:
        print(f"nginx: {shown(measured.nginx)}; ours is {measured.ratio:.0%} of that, at least {SPEED:.0%}")
    good = measured.ratio >= SPEED and measured.memory <= MEMORY
    print("met" if good else "NOT MET")
    return not good


if __name__ == "__main__":
    sys.exit(main())
