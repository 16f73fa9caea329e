"""What survives the Supervisor's own exec, and whether a new interpreter can take it over."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from django_prefork import inheritance

# A new interpreter has this long (seconds) to show that it works.
PROBE_SECONDS = 10.0


def command(executable: str, fd: int, *flags: str) -> list[str]:
    """How the Supervisor is started, `fd` being its inheritance."""
    folder = os.path.dirname(os.path.abspath(__file__))
    return [executable, "-I", "-S", folder, *flags, str(fd)]


def become(executable: str, words: dict[str, Any]) -> None:
    """Execute the Supervisor in this process's place. Returns only by raising OSError."""
    fd = inheritance.leave(words, words["descriptors"])
    try:
        os.execv(executable, command(executable, fd))
    except OSError:
        os.close(fd)
        for descriptor in words["descriptors"]:
            os.set_inheritable(descriptor, False)
        raise


def probe(executable: str, words: dict[str, Any]) -> int:
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
                os.execv(executable, command(executable, fd, "--probe"))
            except BaseException as error:
                print(f"cannot start {executable}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(127)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return pid
