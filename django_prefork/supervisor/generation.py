"""One Arbiter and its workers, as the Supervisor knows them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import Any

from django_prefork import inheritance


class Generation:
    """`number` counts from 1. `life` is the pipe's only write end: closing it retires the generation.

    `pid` is the Arbiter's; None once it is gone, while its workers may serve on. `healthy` once it has said so.
    """

    def __init__(self, number: int, pid: int, life: int, control: int) -> None:
        self.number = number
        self.pid: int | None = pid
        self.life: int | None = life
        self.control = socket.socket(fileno=control)
        self.control.setblocking(False)
        self.healthy = False
        self.started = time.monotonic()
        self.retired_at: float | None = None
        self._line = b""

    @classmethod
    def start(cls, number: int, command: dict[str, Any], board: int, listeners: list[dict[str, Any]]) -> Generation:
        """Start the original command line beside what runs.

        Raises OSError when there cannot be another process.
        """
        life_read, life_write = os.pipe()
        ours, theirs = socket.socketpair()
        words = {
            "generation": number,
            "board": board,
            "life": life_read,
            "control": theirs.fileno(),
            "listeners": listeners,
        }
        descriptors = [board, life_read, theirs.fileno(), *(item["fd"] for item in listeners)]
        # Until the child's exec no signal may run a handler of ours in it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _become(command, words, descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(life_read)
            theirs.close()
        return cls(number, pid, life_write, ours.detach())

    def messages(self) -> list[str]:
        """What the Arbiter has said since; each a word or a few."""
        try:
            while True:
                data = self.control.recv(4096)
                if not data:
                    break
                self._line += data
        except BlockingIOError:
            pass
        except OSError:
            pass
        *lines, self._line = self._line.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def signal(self, number: int) -> None:
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # its end is about to be reaped

    def retire(self) -> None:
        """Close the pipe: Arbiter and workers leave. Whether to retire or for good, the scoreboard has said before."""
        if self.life is not None:
            os.close(self.life)
            self.life = None
            self.retired_at = time.monotonic()

    def close(self) -> None:
        self.retire()
        self.control.close()


def _become(command: dict[str, Any], words: dict[str, Any], descriptors: list[int]) -> None:
    """In the child: exec the command line, or leave with 127. Never returns."""
    try:
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(number) not in (
                None,
                signal.SIG_DFL,
            ):
                signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        fd = inheritance.leave(words, descriptors)
        environment = {**command["environment"], inheritance.ENVIRONMENT: str(fd)}
        try:
            # By its name, so that a symlink that was moved to a new release is followed.
            os.chdir(command["folder"])
        except OSError:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(command["executable"], command["argv"], environment)
    except BaseException as error:
        print(f"cannot start {command['executable']}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)
