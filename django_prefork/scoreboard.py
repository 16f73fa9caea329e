"""Shared memory in which every process of the server says what it does: one row per slot, one writer per field.

Standard library only: the Supervisor maps it too. It is a file without a name (memfd, or an unlinked temporary file),
so that its descriptor can be passed to a later generation. Clocks are `time.monotonic()`, which all processes of one
machine share.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import time
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
_MAGIC = 0x6B726F66657270  # "prefork"

# More slots than workers, since a successor is ready before its predecessor leaves.
SLOTS = 1024

# A worker that has been idle for so long (seconds) is not just between two requests.
AT_REST = 0.0005

_WORD = 8
HEADER_BYTES = 4096
_FAILED_BYTES = 1024  # from here to the header's end
ROW_BYTES = 512
_TEXT_BYTES = 384

# Words of the header.
_H_MAGIC, _H_VERSION, _H_SLOTS, _H_STOPPING, _H_RETIRED, _H_HIGH = range(6)
_DRAINING, _STOPPING = 1, 2
# Words of a row. The Arbiter writes PID to BOOT_DEADLINE before the fork and after the reap, the worker the rest.
PID, GENERATION, BOOT_DEADLINE, STATE, SINCE, REQUESTS, SPOOLED, TEXT_LENGTH, LIMIT = range(9)
_TEXT = ROW_BYTES - _TEXT_BYTES


class State(IntEnum):
    """What a worker does."""

    FREE = 0
    BOOTING = 1
    IDLE = 2
    BUSY = 3
    DRAINING = 4


# As plain numbers: what is written for every request.
_IDLE, _BUSY = int(State.IDLE), int(State.BUSY)
_STATES = {int(state): state for state in State}


class Reading(NamedTuple):
    """One row as it was at one moment. `since` is monotonic seconds; `request` is what is or was last served.

    `limit` is how many seconds that request may take; 0 means any.
    """

    slot: int
    pid: int
    generation: int
    state: State
    since: float
    requests: int
    spooled: int
    limit: float
    request: str


def anonymous_file(name: str) -> int:
    """A descriptor of an empty file that has no path; `name` shows in /proc. It is closed on exec."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    import tempfile  # not needed, and not light, where there is memfd

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Scoreboard:
    """The board. `fd` is its descriptor, to be passed on."""

    def __init__(self, fd: int) -> None:
        """Map the board behind `fd`. Raises ValueError if it is none, or one of another version."""
        self.fd = fd
        self._map = mmap.mmap(fd, 0)
        self.raw = memoryview(self._map)
        self.words = self.raw.cast("Q")
        self.clocks = self.raw.cast("d")
        if self.words[_H_MAGIC] != _MAGIC or self.words[_H_VERSION] != VERSION:
            raise ValueError("not a scoreboard of this version of django-prefork")
        self.slots = self.words[_H_SLOTS]

    @classmethod
    def create(cls, slots: int = SLOTS) -> Scoreboard:
        """A new board. Pages nobody wrote to cost no memory."""
        fd = anonymous_file("prefork-scoreboard")
        os.ftruncate(fd, HEADER_BYTES + slots * ROW_BYTES)
        header = (_MAGIC, VERSION, slots)
        os.pwrite(fd, b"".join(word.to_bytes(_WORD, sys.byteorder) for word in header), _H_MAGIC * _WORD)
        return cls(fd)

    # The header is the Supervisor's.

    @property
    def stopping(self) -> bool:
        """The whole server stops: connections are closed, not handed over."""
        return self.words[_H_STOPPING] == _STOPPING

    @property
    def draining(self) -> bool:
        """It will stop, or does: not ready for more, and no connection is kept for another request."""
        return self.words[_H_STOPPING] != 0

    def drain(self) -> None:
        self.words[_H_STOPPING] = _DRAINING

    def stop(self) -> None:
        self.words[_H_STOPPING] = _STOPPING

    @property
    def retired(self) -> int:
        """Generations up to this number have been retired by the Supervisor."""
        return self.words[_H_RETIRED]

    def retire(self, generation: int) -> None:
        self.words[_H_RETIRED] = max(generation, self.words[_H_RETIRED])

    def began(self, generation: int) -> None:
        self.raw[self._failed(generation)] = 0

    def fail(self, generation: int) -> None:
        """This generation did not boot, and leaves before older ones."""
        self.raw[self._failed(generation)] = 1

    def released(self, generation: int) -> bool:
        """Whether the Supervisor itself let `generation` go: else, when its pipe ends, the Supervisor is gone."""
        return self.retired >= generation or self.raw[self._failed(generation)] == 1

    @staticmethod
    def _failed(generation: int) -> int:
        """A byte of the header for each generation; by the time they are used again, nobody remembers."""
        return _FAILED_BYTES + generation % (HEADER_BYTES - _FAILED_BYTES)

    # The rows.

    def claim(self, generation: int, boot_deadline: float) -> int:
        """The Arbiter takes a free slot for a worker it is about to fork. Raises RuntimeError when there is none."""
        # During a reload two Arbiters look for one: a lock, which ends with its holder.
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            return self._claim(generation, boot_deadline)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def _claim(self, generation: int, boot_deadline: float) -> int:
        for slot in range(self.slots):
            base = self._base(slot)
            if self.words[base + STATE] == State.FREE and not self.words[base + PID]:
                self.words[base + GENERATION] = generation
                self.clocks[base + BOOT_DEADLINE] = boot_deadline
                self.clocks[base + SINCE] = time.monotonic()
                self.words[base + REQUESTS] = 0
                self.words[base + SPOOLED] = 0
                self.words[base + TEXT_LENGTH] = 0
                self.clocks[base + LIMIT] = 0.0
                self.words[base + STATE] = State.BOOTING
                self.words[_H_HIGH] = max(self.words[_H_HIGH], slot + 1)  # no slot behind it was ever used
                return slot
        raise RuntimeError("no slot is free on the scoreboard")

    def occupy(self, slot: int, pid: int) -> None:
        """Say whose slot it is; by the Arbiter, since a worker may die before it can."""
        self.words[self._base(slot) + PID] = pid

    def free(self, slot: int) -> None:
        """By whoever reaped the worker."""
        base = self._base(slot)
        self.words[base + PID] = 0
        self.words[base + STATE] = State.FREE
        self.words[base + SPOOLED] = 0

    def bury(self, generation: int) -> None:
        """Free what an Arbiter that was killed had claimed and not yet given to a worker."""
        for slot in range(self.slots):
            base = self._base(slot)
            if self.words[base + GENERATION] == generation and not self.words[base + PID]:
                self.words[base + STATE] = State.FREE

    def boot_deadline(self, slot: int) -> float:
        return self.clocks[self._base(slot) + BOOT_DEADLINE]

    def read(self, slot: int) -> Reading:
        base = self._base(slot)
        words = self.words
        start = base * _WORD + _TEXT
        length = min(words[base + TEXT_LENGTH], _TEXT_BYTES)
        return Reading(
            slot,
            words[base + PID],
            words[base + GENERATION],
            _STATES.get(words[base + STATE], State.FREE),
            self.clocks[base + SINCE],
            words[base + REQUESTS],
            words[base + SPOOLED],
            self.clocks[base + LIMIT],
            bytes(self.raw[start : start + length]).decode("latin-1"),
        )

    def occupied(self) -> list[Reading]:
        """All rows that belong to a process."""
        return [self.read(slot) for slot in range(self.slots) if self.words[self._base(slot) + PID]]

    def idle_siblings(self, slot: int, now: float) -> int:
        """How many workers have had nothing to do for a moment, and not just between two requests."""
        words, clocks = self.words, self.clocks
        count = 0
        for other in range(min(self.slots, self.words[_H_HIGH])):
            base = self._base(other)
            if words[base + STATE] == _IDLE and other != slot and now - clocks[base + SINCE] > AT_REST:
                count += 1
        return count

    def spooled(self) -> int:
        """Bytes of bodies and of waiting answers on disk, over all workers."""
        return sum(self.words[self._base(0) + SPOOLED :: ROW_BYTES // _WORD])

    def row(self, slot: int) -> Row:
        return Row(self, slot)

    @staticmethod
    def _base(slot: int) -> int:
        return (HEADER_BYTES + slot * ROW_BYTES) // _WORD


class Row:
    """A worker's own row, as it writes it. Nothing here allocates more than a number: it is on the way of a request."""

    __slots__ = ("_clocks", "_text", "_words")

    def __init__(self, board: Scoreboard, slot: int) -> None:
        base = board._base(slot)
        text = base * _WORD + _TEXT
        self._words = board.words[base : base + _TEXT // _WORD]
        self._clocks = board.clocks[base : base + _TEXT // _WORD]
        self._text = board.raw[text : text + _TEXT_BYTES]

    def state(self, state: State, now: float) -> None:
        self._clocks[SINCE] = now
        self._words[STATE] = state

    def begin(self, line: bytes, now: float) -> None:
        """The application starts on the request whose first line is `line`."""
        size = len(line)
        if size > _TEXT_BYTES:
            line = line[:_TEXT_BYTES]
            size = _TEXT_BYTES
        self._text[:size] = line
        words = self._words
        words[TEXT_LENGTH] = size
        # Since before state: who sees BUSY must not read the age of something older.
        self._clocks[SINCE] = now
        words[STATE] = _BUSY

    def end(self, now: float) -> None:
        """The application has answered."""
        words = self._words
        words[REQUESTS] += 1
        words[STATE] = _IDLE
        self._clocks[SINCE] = now

    def since(self) -> float:
        return self._clocks[SINCE]

    def limit(self, seconds: float) -> None:
        """What the running request may take."""
        self._clocks[LIMIT] = seconds

    def progress(self, now: float) -> None:
        """A streaming response produced a piece: the time limit begins anew."""
        self._clocks[SINCE] = now

    def spool(self, count: int) -> None:
        """`count` more bytes of bodies or answers are on disk (fewer, if negative)."""
        self._words[SPOOLED] = max(0, self._words[SPOOLED] + count)
