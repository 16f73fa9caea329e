"""Shared memory in which every process of the server says what it does: one row per slot, one writer per field.

Standard library only: the Supervisor maps it too. It is a file without a name (memfd, or an unlinked temporary file),
so that its descriptor can be passed to a later generation. Clocks are `time.monotonic()`, which all processes of one
machine share, but for `started`, which is Unix time. Where everything lies is in `layout.py`; what a worker writes, in
`row.py`; how workers ended, in `ends.py`; what they have counted, in `counters.py`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

from django_prefork import layout
from django_prefork.layout import (
    ACTIVE,
    APPLICATION,
    BEGAN,
    BOOT_DEADLINE,
    BORN,
    CONNECTIONS,
    DUMP_BYTES,
    DUMP_LENGTH,
    DUMPED,
    FAILED_BYTES,
    GENERATION,
    H_HIGH,
    H_RETIRED,
    H_STOPPING,
    HEADER_BYTES,
    LEAVING,
    LIMIT,
    PID,
    PRIVATE,
    QUEUE,
    ROW_BYTES,
    ROWS_AT,
    SERVED_BEFORE,
    SHARED,
    SINCE,
    SLOTS,
    SPOOLED,
    STATE,
    STREAMS,
    WORD,
)
from django_prefork.row import Row

# A worker that has been idle for so long (seconds) is not just between two requests.
AT_REST = 0.0005

_DRAINING, _STOPPING = 1, 2


class State(IntEnum):
    """What a worker does. BUSY and STREAMING are never in its row: they follow from the sign of SINCE."""

    FREE = 0
    BOOTING = 1
    IDLE = 2
    BUSY = 3
    DRAINING = 4
    STREAMING = 5


# As a plain number: compared on the way of a request.
_IDLE = int(State.IDLE)
_STATES = {int(state): state for state in State}


class Stage(IntEnum):
    """Where in its life a generation is, as its Arbiter says."""

    BOOTING = 0
    READY = 1
    LEAVING = 2


class Reading(NamedTuple):
    """One row as it was at one moment.

    `since` (monotonic seconds) is when the state began, or the running request last got on, `began` when the request
    did. `request` is the first line of what is or was last served, `client` who asked for it, `view` Django's name for
    what answers, empty where that is not known. `limit` is how many seconds it may take; 0 means any. `leaving`: it
    takes no more connections.
    """

    slot: int
    pid: int
    generation: int
    state: State
    since: float
    spooled: int
    limit: float
    request: str
    began: float
    client: str
    request_id: str
    view: str
    leaving: bool

    @property
    def serves(self) -> bool:
        """A request runs."""
        return self.state is State.BUSY or self.state is State.STREAMING


class Era(NamedTuple):
    """A generation, as its Arbiter says: `target` is how many workers it is to have, `began` monotonic seconds."""

    number: int
    pid: int
    target: int
    stage: Stage
    began: float


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
        #: `draining`, for who asks at each request: not 0 if it is so. To be read only.
        self.drains = self.words[H_STOPPING : H_STOPPING + 1]
        self.clocks = self.raw.cast("d")
        if self.words[layout.H_MAGIC] != layout.MAGIC or self.words[layout.H_VERSION] != layout.VERSION:
            raise ValueError("not a scoreboard of this version of django-prefork")
        self.slots = self.words[layout.H_SLOTS]

    @classmethod
    def create(cls, slots: int = SLOTS) -> Scoreboard:
        """A new board, by the process that is, or will be, the Supervisor. Pages nobody wrote to cost no memory."""
        fd = anonymous_file("prefork-scoreboard")
        os.ftruncate(fd, layout.size(slots))
        header = (layout.MAGIC, layout.VERSION, slots)
        os.pwrite(fd, b"".join(word.to_bytes(WORD, sys.byteorder) for word in header), layout.H_MAGIC * WORD)
        board = cls(fd)
        board.words[layout.H_SUPERVISOR] = os.getpid()
        board.clocks[layout.H_STARTED] = time.time()
        return board

    # -- the header is the Supervisor's --------------------------------------------------------------------------------

    @property
    def supervisor(self) -> int:
        """The server's pid."""
        return self.words[layout.H_SUPERVISOR]

    @property
    def started(self) -> float:
        """When the server was; Unix time."""
        return self.clocks[layout.H_STARTED]

    @property
    def stopping(self) -> bool:
        """The whole server stops: connections are closed, not handed over."""
        return self.words[H_STOPPING] == _STOPPING

    @property
    def draining(self) -> bool:
        """It will stop, or does: not ready for more, and no connection is kept for another request."""
        return self.words[H_STOPPING] != 0

    def drain(self) -> None:
        """Does not take back a stop, which somebody may not have heard of when asking for this."""
        self.words[H_STOPPING] = max(_DRAINING, self.words[H_STOPPING])

    def stop(self) -> None:
        self.words[H_STOPPING] = _STOPPING

    @property
    def retired(self) -> int:
        """Generations up to this number have been retired by the Supervisor."""
        return self.words[H_RETIRED]

    def retire(self, generation: int) -> None:
        self.words[H_RETIRED] = max(generation, self.words[H_RETIRED])

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
        return FAILED_BYTES + generation % (HEADER_BYTES - FAILED_BYTES)

    # -- generations: each Arbiter's own entry -------------------------------------------------------------------------

    def tell(self, generation: int, stage: Stage, target: int) -> None:
        """By the Arbiter of `generation`, of itself."""
        base = self._era(generation)
        if self.words[base + layout.G_NUMBER] != generation:
            self.clocks[base + layout.G_BEGAN] = time.monotonic()
            self.words[base + layout.G_NUMBER] = generation
        self.words[base + layout.G_PID] = os.getpid()
        self.words[base + layout.G_TARGET] = target
        self.words[base + layout.G_STAGE] = stage

    def forget(self, generation: int) -> None:
        """By the Supervisor: its Arbiter has ended."""
        base = self._era(generation)
        if self.words[base + layout.G_NUMBER] == generation:
            self.words[base + layout.G_PID] = 0

    def eras(self) -> list[Era]:
        """Generations whose Arbiter lives, the oldest first."""
        found = []
        for place in range(layout.GENERATIONS):
            base = self._era(place)
            words = self.words[base : base + layout.GENERATION_WORDS].tolist()
            if words[layout.G_PID]:
                stage = Stage(min(words[layout.G_STAGE], Stage.LEAVING))
                began = self.clocks[base + layout.G_BEGAN]
                found.append(Era(words[layout.G_NUMBER], words[layout.G_PID], words[layout.G_TARGET], stage, began))
        return sorted(found)

    @staticmethod
    def _era(generation: int) -> int:
        return layout.H_GENERATIONS + generation % layout.GENERATIONS * layout.GENERATION_WORDS

    # -- the rows ------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """During a reload two Arbiters write here: a lock, which ends with its holder."""
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def claim(self, generation: int, boot_deadline: float) -> int:
        """The Arbiter takes a free slot for a worker it is about to fork. Raises RuntimeError when there is none."""
        with self.locked():
            return self._claim(generation, boot_deadline)

    def _claim(self, generation: int, boot_deadline: float) -> int:
        words, clocks = self.words, self.clocks
        for slot in range(self.slots):
            base = self._base(slot)
            if words[base + STATE] == State.FREE and not words[base + PID]:
                now = time.monotonic()
                words[base + GENERATION] = generation
                clocks[base + BOOT_DEADLINE] = boot_deadline
                clocks[base + BORN] = now
                clocks[base + SINCE] = -now
                words[base + SERVED_BEFORE] = self._served(base)
                words[base + layout.TEXT_AT // WORD] = 0
                words[base + layout.VIEW_AT // WORD] = 0
                for field in (PRIVATE, SHARED, LEAVING, SPOOLED, STREAMS, CONNECTIONS, ACTIVE):
                    words[base + field] = 0
                clocks[base + LIMIT] = 0.0
                words[base + STATE] = State.BOOTING
                words[H_HIGH] = max(words[H_HIGH], slot + 1)  # no slot behind it was ever used
                return slot
        raise RuntimeError("no slot is free on the scoreboard")

    def occupy(self, slot: int, pid: int) -> None:
        """Say whose slot it is; by the Arbiter, since a worker may die before it can."""
        self.words[self._base(slot) + PID] = pid

    def free(self, slot: int) -> None:
        """By whoever reaped the worker."""
        base = self._base(slot)
        for field in (PID, SPOOLED, CONNECTIONS, ACTIVE, PRIVATE, SHARED):
            self.words[base + field] = 0
        self.words[base + STATE] = State.FREE

    def bury(self, generation: int) -> None:
        """Free what an Arbiter that was killed had claimed and not yet given to a worker."""
        for slot in range(self.high):
            base = self._base(slot)
            if self.words[base + GENERATION] == generation and not self.words[base + PID]:
                self.words[base + STATE] = State.FREE

    @property
    def high(self) -> int:
        """Slots from this one on were never used: to look at them would give them memory."""
        return min(self.slots, self.words[H_HIGH])

    def boot_deadline(self, slot: int) -> float:
        return self.clocks[self._base(slot) + BOOT_DEADLINE]

    def read(self, slot: int) -> Reading:
        base = self._base(slot)
        words, clocks = self.words, self.clocks
        since = clocks[base + SINCE]
        state = _STATES.get(words[base + STATE], State.FREE)
        leaving = state is State.DRAINING or words[base + LEAVING] != 0 or self.released(words[base + GENERATION])
        began = since
        if since > 0 and state not in (State.FREE, State.BOOTING):
            state = State.BUSY
            if words[base + STREAMS]:
                state, began = State.STREAMING, clocks[base + BEGAN]
        start = base * WORD
        text = _text(self.raw, start + layout.TEXT_AT, layout.TEXT_BYTES).split("\n")
        return Reading(
            slot,
            words[base + PID],
            words[base + GENERATION],
            state,
            abs(since),
            words[base + SPOOLED],
            clocks[base + LIMIT],
            text[-1],
            abs(began),
            text[0] if len(text) > 1 else "",
            text[1] if len(text) > 2 else "",
            _text(self.raw, start + layout.VIEW_AT, layout.VIEW_BYTES),
            leaving,
        )

    def occupied(self) -> list[Reading]:
        """All rows that belong to a process."""
        return [self.read(slot) for slot in range(self.high) if self.words[self._base(slot) + PID]]

    def idle_siblings(self, slot: int, now: float) -> list[int]:
        """Of workers that have had nothing to do for a moment, and not just between two requests: their connections."""
        words, clocks = self.words, self.clocks
        idle = []
        latest = AT_REST - now  # at rest since then: times are negative
        for other in range(self.high):
            base = self._base(other)
            if words[base + STATE] == _IDLE and other != slot and latest < clocks[base + SINCE] < 0:
                idle.append(words[base + CONNECTIONS])
        return idle

    def spooled(self) -> int:
        """Bytes of bodies and of waiting answers on disk, over all workers."""
        return sum(self.words[self._base(slot) + SPOOLED] for slot in range(self.high))

    def row(self, slot: int) -> Row:
        return Row(self.raw, slot)

    @staticmethod
    def _base(slot: int) -> int:
        return (ROWS_AT + slot * ROW_BYTES) // WORD

    def _served(self, base: int) -> int:
        return sum(self.words[base + APPLICATION : base + QUEUE].tolist())

    def word(self, slot: int, field: int) -> int:
        """One of the fields of `layout`, where no `Reading` has it."""
        return self.words[self._base(slot) + field]

    def clock(self, slot: int, field: int) -> float:
        return self.clocks[self._base(slot) + field]

    def requests(self, slot: int) -> int:
        """How many the worker that is there, or was last, has answered."""
        base = self._base(slot)
        return self._served(base) - self.words[base + SERVED_BEFORE]

    # -- what the Arbiter knows of a worker ----------------------------------------------------------------------------

    def tell_leaving(self, slot: int) -> None:
        """It is told to leave; it may be too busy to hear it."""
        self.words[self._base(slot) + LEAVING] = 1

    def weigh(self, slot: int, private: int, shared: int) -> None:
        """Bytes of memory that are its own, and that it shares."""
        base = self._base(slot)
        self.words[base + PRIVATE] = private
        self.words[base + SHARED] = shared

    def put_stacks(self, slot: int, text: bytes) -> None:
        """The stacks of its threads, as they are now. What is too much is missing at the top."""
        text = text[-DUMP_BYTES:]
        start = layout.stacks_at(self.slots) + slot * DUMP_BYTES
        self.raw[start : start + len(text)] = text
        base = self._base(slot)
        self.words[base + DUMP_LENGTH] = len(text)
        self.clocks[base + DUMPED] = time.monotonic()

    def stacks(self, slot: int) -> tuple[float, str]:
        """When they were put there (monotonic seconds, 0: never), and the text."""
        base = self._base(slot)
        start = layout.stacks_at(self.slots) + slot * DUMP_BYTES
        text = bytes(self.raw[start : start + min(self.words[base + DUMP_LENGTH], DUMP_BYTES)])
        return self.clocks[base + DUMPED], text.decode("utf-8", "replace")


def _text(raw: memoryview, start: int, size: int) -> str:
    """Up to the first zero byte."""
    return bytes(raw[start : start + size]).partition(b"\0")[0].decode("latin-1")
