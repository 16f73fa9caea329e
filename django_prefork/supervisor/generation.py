"""One Arbiter and its workers, as the Supervisor knows them."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time
from enum import Enum, auto
from typing import Any

from django_prefork import inheritance

# How much longer than an Arbiter itself the Supervisor waits for it, in seconds: the Arbiter names what it kills.
PATIENCE = 1.0
# What a generation says while it boots is kept this far (bytes): a traceback of any depth.
BOOT_OUTPUT = 256 * 1024


class Stage(Enum):
    """Where in its life a generation is."""

    BOOTING = auto()  # started; its workers are not all ready
    SERVING = auto()
    RETIRING = auto()  # its pipe is closed
    FAILED = auto()  # it did not boot: it is being ended


class Generation:
    """`number` counts from 1. `life` is the pipe's only write end: closing it retires the generation.

    `pid` is the Arbiter's; None once it is gone, while its workers may serve on. `output` is the read end of what
    a later generation writes to stderr while it boots.
    """

    def __init__(self, number: int, pid: int | None, life: int, control: int, output: int | None = None) -> None:
        self.number = number
        self.pid = pid
        self.life: int | None = life
        self.control = socket.socket(fileno=control)
        self.control.setblocking(False)
        self.stage = Stage.BOOTING
        #: When it last got on with booting; when it was retired. Monotonic seconds.
        self.progress = time.monotonic()
        self.retired_at: float | None = None
        #: What it says of itself: its listeners and its limits. Taken over when it is ready.
        self.place: dict[str, Any] | None = None
        #: Descriptors of listeners that this generation made, as it gave them up to us.
        self.given: list[int] = []
        self.said = b""
        #: Whether its code is loaded: it hears its pipe, and may serve.
        self.has_booted = False
        #: Since when, in seconds since 1970, as files have it.
        self.booted_at = math.inf
        self._output = output
        self._line = b""

    @classmethod
    def start(
        cls,
        number: int,
        command: dict[str, Any],
        board: int,
        queues: list[list[int]],
        listeners: list[dict[str, Any]],
        watched: int | None,
        is_first: bool,
    ) -> Generation:
        """Start the original command line beside what runs.

        `watched` is the file of `Changes`, if there is one; `is_first` says that none has been ready before.

        Raises OSError when there cannot be another process.
        """
        life_read, life_write = os.pipe()
        output_read, output_write = os.pipe()
        os.set_blocking(output_read, False)
        ours, theirs = socket.socketpair()
        # The real stderr waits beside the pipe until the generation has booted.
        stderr = os.dup(2)
        words = {
            "generation": number,
            "board": board,
            "life": life_read,
            "control": theirs.fileno(),
            "stderr": stderr,
            "queues": queues,
            "listeners": listeners,
            "watched": watched,
            "began": time.time(),
            "is_first": is_first,
        }
        descriptors = [board, life_read, theirs.fileno(), stderr, *(fd for queue in queues for fd in queue)]
        descriptors += [item["fd"] for item in listeners]
        if watched is not None:
            descriptors.append(watched)
        # Until the child's exec no signal may run a handler of ours in it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                os.dup2(output_write, 2)
                if watched is not None:
                    # Bytecode is known by its source's size and the second it was written in: two saves in one second
                    # may look the same, and the first would be served for good.
                    command["environment"]["PYTHONDONTWRITEBYTECODE"] = "1"
                _become(command, words, descriptors)
        except OSError:
            for fd in (life_write, output_read):
                os.close(fd)
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for fd in (life_read, output_write, stderr):
                os.close(fd)
            theirs.close()
        return cls(number, pid, life_write, ours.detach(), output_read)

    @property
    def name(self) -> str:
        return f"gen={self.number}" + (f" pid={self.pid}" if self.pid is not None else "")

    # -- talking -------------------------------------------------------------------------------------------------------

    def descriptors(self) -> list[int]:
        """What the Supervisor waits for."""
        found = [self.control.fileno()] if self.pid is not None else []
        return found if self._output is None else [*found, self._output]

    def messages(self) -> list[str]:
        """What the Arbiter has said since, line by line; descriptors that came along are in `given`."""
        try:
            while True:
                data, given, _, _ = socket.recv_fds(self.control, 65536, 64)
                for fd in given:
                    os.set_inheritable(fd, False)
                self.given += given
                if not data:
                    break
                self._line += data
        except BlockingIOError:
            pass
        except OSError:
            pass  # it is gone: its end is about to be reaped
        *lines, self._line = self._line.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def say(self, words: str) -> None:
        if self.pid is not None:
            try:
                self.control.send(words.encode() + b"\n")
            except OSError:
                pass

    def listen(self) -> None:
        """Take what it writes to stderr while it boots."""
        if self._output is None:
            return
        try:
            while data := os.read(self._output, 65536):
                self.said = (self.said + data)[-BOOT_OUTPUT:]
            os.close(self._output)
            self._output = None
        except BlockingIOError:
            pass

    def booted(self) -> None:
        """Its code is loaded, and it has its stderr back; what it had said meanwhile belongs there too."""
        self.has_booted = True
        self.booted_at = time.time()
        self.listen()
        if self.said:
            try:
                os.write(2, self.said)
            except OSError:
                pass
            self.said = b""

    def may_have_written(self, path: str) -> bool:
        """Whether a file that has changed is as old as the loading of the code: that may have done it."""
        try:
            return os.stat(path).st_ctime <= self.booted_at
        except (OSError, ValueError):
            return not self.has_booted

    def signal(self, number: int) -> None:
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # its end is about to be reaped

    # -- the end -------------------------------------------------------------------------------------------------------

    def retire(self) -> None:
        """Close the pipe: Arbiter and workers leave. Whether to retire or for good, the scoreboard has said before."""
        if self.life is not None:
            os.close(self.life)
            self.life = None
            self.retired_at = time.monotonic()
            if self.stage is not Stage.FAILED:
                self.stage = Stage.RETIRING

    def close(self) -> None:
        self.retire()
        self.control.close()
        if self._output is not None:
            os.close(self._output)
            self._output = None

    # -- across an exec of our own -------------------------------------------------------------------------------------

    def words(self) -> dict[str, Any]:
        """What `Generation.of()` takes; only of a generation that has booted."""
        return {
            "number": self.number,
            "pid": self.pid,
            "life": self.life,
            "control": self.control.fileno(),
            "stage": self.stage.name,
        }

    @classmethod
    def of(cls, words: dict[str, Any]) -> Generation:
        generation = cls(words["number"], words["pid"], words["life"], words["control"])
        generation.stage = Stage[words["stage"]]
        return generation


def _become(command: dict[str, Any], words: dict[str, Any], descriptors: list[int]) -> None:
    """In the child: exec the command line, or leave with 127. Never returns."""
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) not in (None, signal.SIG_DFL):
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
