"""What the tests of faults break things with. A tool that a machine lacks skips the test in one sentence."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.harness import PATIENCE, Server, eventually

APPLICATIONS = "tests.faults.applications"


def serve(*arguments: str, application: str = "trouble", **options: object) -> Server:
    """A server of one of the applications of this folder."""
    environment = {"TEST_APPLICATION": f"{APPLICATIONS}.{application}", **(options.pop("environment", None) or {})}  # type: ignore[dict-item]
    return Server(*arguments, environment=environment, **options)  # type: ignore[arg-type]


def need(tool: str, package: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"needs {tool} (Debian's package {package})")
    return found


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount or a control group")


@contextlib.contextmanager
def injected(pid: int, calls: str, how: str) -> Iterator[None]:
    """The kernel answers `pid`'s system calls as `how` says (strace --inject), until the block ends."""
    command = [need("strace", "strace"), "-qq", "-p", str(pid), "-e", f"trace={calls}", "-e", f"inject={calls}:{how}"]
    # Its end is the end of the fault: it lets its process go.
    with subprocess.Popen([*command, "-o", "/dev/null"], stderr=subprocess.PIPE, text=True) as tracer:
        try:
            eventually(lambda: tracer.poll() is not None or traced_by(pid) == tracer.pid, "strace is attached")
            if tracer.poll() is not None:
                assert tracer.stderr is not None
                pytest.skip(f"strace cannot attach here: {tracer.stderr.read().strip()}")
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(PATIENCE)


def traced_by(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    return 0


@contextlib.contextmanager
def control_group(controller: str, **limits: int) -> Iterator[Path]:
    """A cgroup (v1) of our own with these `limits`; whoever is in it at the end goes back to where it came from."""
    need_root()
    parent = Path("/sys/fs/cgroup") / controller
    folder = parent / f"prefork-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs a writable control group v1 {parent}: {error.strerror}")
    try:
        for name, value in limits.items():
            (folder / f"{controller}.{name}").write_text(str(value))
        yield folder
    finally:
        eventually(lambda: not (folder / "cgroup.procs").read_text(), "nobody is left in the control group")
        eventually(lambda: _removed(folder), "the control group goes")


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


class Clock:
    """The wall clock as a server sees it (libfaketime); the monotonic one goes on as it is."""

    LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")

    def __init__(self, folder: Path) -> None:
        self.library = next((str(p) for pattern in self.LIBRARIES for p in Path("/").glob(pattern[1:])), "")
        self._file = folder / "clock"
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Let it be `seconds` later, or earlier, than it is."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        if not self.library:
            pytest.skip("needs libfaketime (Debian's package faketime)")
        return {
            "LD_PRELOAD": self.library,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
        }


def family(server: Server) -> list[psutil.Process]:
    """The Supervisor and all below it, zombies as well."""
    supervisor = psutil.Process(server.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def zombies(server: Server) -> list[int]:
    found = []
    for process in family(server):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def send(sock: socket.socket, path: str, *more: str) -> None:
    sock.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *more, "", ""]).encode())


def died(sock: socket.socket) -> bool:
    """Whether the connection ends without a byte of an answer."""
    try:
        return sock.recv(65536) == b""
    except ConnectionResetError:
        return True
