"""SIGUSR2: this process itself anew, with the interpreter and the django-prefork that are there now."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from django_prefork import inheritance
from django_prefork.supervisor import state
from django_prefork.supervisor.system import how, kill, say

# A new interpreter has this long (seconds) to show that it works.
PROBE_SECONDS = 10.0
# A probe that was killed is looked for again after this time (seconds).
AGAIN = 1.0


class Upgrade:
    """To `executable`: a probe first, and if that works, the exec. Whatever fails, all stays as it is."""

    def __init__(self, executable: str) -> None:
        self.executable = executable
        #: The probe, while there is one, and until when it has time (monotonic).
        self.pid: int | None = None
        self.deadline: float | None = None

    def probe(self, words: dict[str, Any]) -> None:
        try:
            self.pid = _probe(self.executable, words)
            self.deadline = time.monotonic() + PROBE_SECONDS
        except OSError as error:
            say("ERROR", f"SIGUSR2: cannot try the new interpreter ({error.strerror}): all stays as it is")

    def worked(self, status: int) -> bool:
        """The probe has ended."""
        self.pid = self.deadline = None
        if status:
            say("ERROR", f"SIGUSR2: {self.executable} cannot take over ({how(status)}): all stays as it is")
        return status == 0

    def become(self, words: dict[str, Any]) -> None:
        """Returns only if that cannot be done."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            state.become(self.executable, words)
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            say("ERROR", f"SIGUSR2: cannot execute {self.executable} ({error.strerror}): all stays as it is")

    def end_what_stays(self, now: float) -> None:
        if self.pid is not None and self.deadline is not None and now >= self.deadline:
            self.deadline = now + AGAIN
            kill(self.pid)


def _probe(executable: str, words: dict[str, Any]) -> int:
    """Start the would-be Supervisor on a copy of `words`; it reads them, maps the scoreboard, and exits. Its pid.

    Raises OSError when it cannot even be started.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                fd = inheritance.leave(words, words["descriptors"])
                for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                    if signal.getsignal(number) not in (None, signal.SIG_DFL):
                        signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                os.execv(executable, state.command(executable, fd, "--probe"))
            except BaseException as error:
                print(f"cannot start {executable}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(127)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return pid
