"""Lines of the access log that are not written yet, in memory that outlives the worker which made them.

A worker that has several requests at hand writes their lines together: beside Django, a write(2) for each of them cost
half of what the log did. What a worker leaves unwritten when it is killed, its Arbiter writes.
"""

from __future__ import annotations

import mmap

_WORD = 8


class Unwritten:
    """Of all workers of one Arbiter, which makes it before it forks them: `room` bytes for each of `slots`."""

    def __init__(self, slots: int, room: int) -> None:
        self._each = _WORD + (room + _WORD - 1) // _WORD * _WORD
        self._room = room
        # Pages that nobody writes to cost no memory.
        self._raw = mmap.mmap(-1, slots * self._each)

    def of(self, slot: int) -> Lines:
        return Lines(self._raw, slot * self._each, self._room)


class Lines:
    """Of one worker: `size` bytes now. Its user sees to it that nobody else is at it."""

    __slots__ = ("_end", "_raw", "_size", "_start", "_stop")

    def __init__(self, raw: mmap.mmap, at: int, room: int) -> None:
        self._raw = raw
        self._size = memoryview(raw)[at : at + _WORD].cast("Q")
        self._start = at + _WORD
        self._stop = self._start + room
        self._end = self._start + self._size[0]  # kept here, too: no need to read it, nor to make views of the memory

    @property
    def size(self) -> int:
        return self._end - self._start

    def add(self, line: bytes) -> bool:
        """False: there is no room left."""
        start = self._end
        end = start + len(line)
        if end > self._stop:
            return False
        self._raw[start:end] = line
        self._size[0] = end - self._start  # last: a worker that dies before has added nothing
        self._end = end
        return True

    def text(self) -> bytes:
        return self._raw[self._start : self._end]

    def clear(self) -> None:
        self._size[0] = 0
        self._end = self._start
