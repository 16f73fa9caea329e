"""Small things between the Supervisor and the system: processes, and what it says."""

from __future__ import annotations

import os
import select
import signal
import time


def how(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def parent(pid: int) -> int | None:
    """The parent of `pid`; None where nobody tells (no Linux), or there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def say(level: str, text: str) -> None:
    """One line on stderr, as the other processes write theirs; a closed or full stderr harms nobody."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S %z")
    data = f"[{stamp}] [{os.getpid()}] [{level}] {text}\n".encode()
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    try:
        # A pipe that is writable takes PIPE_BUF bytes without blocking, and promises no more.
        while data and poll.poll(100):
            data = data[os.write(2, data[: select.PIPE_BUF]) :]
    except OSError:
        pass
