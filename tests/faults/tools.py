"""What the tests of faults break things with. A tool that a machine lacks skips the test in one sentence."""

from __future__ import annotations

import contextlib
import http.client
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
            # Let go in the middle of a call that it has changed, strace leaves it to fail with ENOSYS.
            with contextlib.suppress(AssertionError, psutil.NoSuchProcess):
                eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_SLEEPING, "it waits", 5)
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


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jumped(void)
{
    char text[32];
    int before = errno, fd = open(getenv("TEST_CLOCK"), O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    errno = before;
    text[size > 0 ? size : 0] = 0;
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += jumped();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    now->tv_sec = t.tv_sec;
    now->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (now) *now = t.tv_sec;
    return t.tv_sec;
}
"""


class Clock:
    """The wall clock as a server sees it; the monotonic one goes on as it is.

    By a library of our own: Debian's libfaketime 0.9.10 makes every `time.sleep()` of Python 3.11 fail with EINVAL, and
    leaves shared memory behind when its process is killed.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.jump(0)
        compiler = shutil.which("cc")
        self.library = ""
        if compiler is not None:
            source, library = folder / "clock.c", folder / "clock.so"
            source.write_text(CLOCK)
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
            self.library = str(library)

    def jump(self, seconds: int) -> None:
        """Let it be `seconds` later, or earlier, than it is."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        if not self.library:
            pytest.skip("needs a C compiler (Debian's package gcc) for a clock that jumps")
        return {"LD_PRELOAD": self.library, "TEST_CLOCK": str(self._file)}


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


def died(sock: socket.socket) -> bool:
    """Whether the connection ends without a byte of an answer."""
    try:
        return sock.recv(65536) == b""
    except ConnectionResetError:
        return True


def status(sock: socket.socket) -> int:
    """Of the answer, and the end of the connection; 0 if there was none."""
    answer = http.client.HTTPResponse(sock)
    try:
        answer.begin()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        answer.close()
        sock.close()
