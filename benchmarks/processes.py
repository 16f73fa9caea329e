"""A server as a family of processes: started, found, ended."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import ROOT

START_SECONDS = 60.0
STOP_SECONDS = 10.0


class StartError(Exception):
    """The server does not come up; the text is the last it said."""


class Stat(NamedTuple):
    """Of /proc/<pid>/stat (proc(5)); times in clock ticks. `children` is what reaped children had used."""

    pid: int
    parent: int
    session: int
    user: int
    system: int
    children: int
    started: int


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the name, may hold anything, brackets and blanks too.
    words = text.rpartition(")")[2].split()
    if words[0] in "ZX":
        return None
    return Stat(
        pid,
        parent=int(words[1]),
        session=int(words[3]),
        user=int(words[11]),
        system=int(words[12]),
        children=int(words[13]) + int(words[14]),
        started=int(words[19]),
    )


def family(root: int) -> dict[int, Stat]:
    """The process `root`, all its descendants, and what is left of its session where a parent has died."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    everyone = {stat.pid: stat for stat in map(read_stat, pids) if stat is not None}
    found = {pid: stat for pid, stat in everyone.items() if pid == root or stat.session == root}
    while True:
        more = {pid: stat for pid, stat in everyone.items() if stat.parent in found and pid not in found}
        if not more:
            return found
        found |= more


class Running(NamedTuple):
    """A server that answers."""

    pid: int
    port: int

    def family(self) -> dict[int, Stat]:
        return family(self.pid)

    def connection(self, seconds: float = 5.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)


def free_port() -> int:
    """A port that nobody listened to a moment ago; most peers cannot be handed a socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(command: Sequence[str], port: int, environ: dict[str, str], target: str, log: Path) -> Iterator[Running]:
    """Start `command`, wait until `target` answers at `port`, and leave nothing of it behind. Raises `StartError`."""
    with log.open("wb") as output:
        # A session of its own: that is how a process whose parent died is still found.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    running = Running(process.pid, port)
    try:
        _await(process, running, target, log)
        yield running
    finally:
        _stop(process)


def _await(process: subprocess.Popen[bytes], running: Running, target: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        connection = running.connection()
        try:
            connection.request("GET", target, headers={"Host": "localhost", "Connection": "close"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
            continue
        finally:
            connection.close()
        if status == 200:
            return
        raise StartError(f"it answers {status} to {target}{_last_words(log)}")
    reason = "it does not answer" if process.poll() is None else f"it ended with status {process.returncode}"
    raise StartError(f"{reason}{_last_words(log)}")


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    known = family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass  # killed below, with whatever else is left
    left = {pid: stat for pid, stat in (known | family(process.pid)).items() if _is_there(stat)}
    deadline = time.monotonic() + 1.0
    while left and process.poll() is not None and time.monotonic() < deadline:
        time.sleep(0.02)  # workers that leave in their own time
        left = {pid: stat for pid, stat in left.items() if _is_there(stat)}
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # gone in between
    process.wait()


def _is_there(stat: Stat) -> bool:
    """Whether it is still the same process, and not another that got its number."""
    now = read_stat(stat.pid)
    return now is not None and now.started == stat.started
