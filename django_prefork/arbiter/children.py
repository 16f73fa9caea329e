"""The workers as the Arbiter knows them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum, auto

from django_prefork.scoreboard import Reading


class Stage(Enum):
    """Where in its life a worker is, for the Arbiter. What it does at the moment stands in the scoreboard."""

    BOOTING = auto()  # forked, and not said to be ready
    SERVING = auto()
    EXPIRING = auto()  # asked for a successor; serves until that one is ready
    LEAVING = auto()  # told to leave
    DOOMED = auto()  # its stacks are being dumped, or it has been sent SIGKILL


class Child:
    """`pipe` is the read end of what the worker says; `dump` the file its stacks go to. Times are monotonic seconds."""

    def __init__(self, slot: int, generation: int, pid: int, pipe: int, dump: int, born: float) -> None:
        self.slot = slot
        self.pid = pid
        #: As all processes call it in the log.
        self.name = f"worker={slot} gen={generation} pid={pid}"
        self.pipe = pipe
        self.dump = dump
        self.born = born
        self.stage = Stage.BOOTING
        self.words = b""
        #: Until when it may stay, once it has been told to leave.
        self.leave_deadline: float | None = None
        #: When its stacks are taken as they are, and it is killed.
        self.kill_at: float | None = None
        self.dump_size = 0
        #: Of the request (by its `since`) that was told to be late: when it is told again.
        self.told_late = 0.0
        self.tell_again = 0.0
        #: When its memory is looked at next, for max_rss_hard; and for those who look inside, once it has settled.
        self.weigh_at = 0.0
        self.weigh_next = born + 1.0
        #: Why it goes, if it was told to: one of `layout.REASONS`, and in words.
        self.reason = ""
        self.why = ""
        #: The request it is killed for.
        self.accused: Reading | None = None
        #: Time that nobody had, for the request or boot that began at `credit_since`.
        self.credit = 0.0
        self.credit_since = 0.0

    @property
    def serves(self) -> int:
        """How much it would be missed: not yet ready, soon to be replaced, or fully."""
        return (Stage.BOOTING, Stage.EXPIRING, Stage.SERVING).index(self.stage)

    def messages(self) -> list[str]:
        """What the worker has said since the last call, line by line."""
        try:
            while data := os.read(self.pipe, 65536):
                self.words += data
        except BlockingIOError:
            pass
        except OSError:
            pass
        *lines, self.words = self.words.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def kill(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # about to be reaped

    def credited(self, since: float) -> float:
        return self.credit if self.credit_since == since else 0.0

    def give_credit(self, since: float, seconds: float) -> None:
        self.credit = self.credited(since) + seconds
        self.credit_since = since

    def close(self) -> None:
        os.close(self.pipe)
        os.close(self.dump)


class Children:
    """All of them, by pid."""

    def __init__(self) -> None:
        self._by_pid: dict[int, Child] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_pid.values()))

    def add(self, child: Child) -> None:
        self._by_pid[child.pid] = child

    def remove(self, pid: int) -> Child | None:
        return self._by_pid.pop(pid, None)

    def at(self, *stages: Stage) -> list[Child]:
        return [child for child in self._by_pid.values() if child.stage in stages]

    def pids(self) -> list[int]:
        return list(self._by_pid)
