"""Lines of the access log that are not written yet, in memory that outlives the worker which made them.

A worker writes the lines of one turn of its loop together: beside Django, a write(2) for each of them cost half of what
the log did. What a worker leaves unwritten when it is killed, its Arbiter writes.
"""

from __future__ import annotations

import mmap
import select

_WORD = 8
# So much a pipe takes whole, never mixed with the lines of others (PIPE_BUF: 4096 bytes on Linux, 512 at the least).
_EACH = select.PIPE_BUF
TOGETHER = _EACH - _WORD


class Unwritten:
    """Of all workers of one Arbiter, which makes it before it forks them."""

    def __init__(self, slots: int) -> None:
        # Pages that nobody writes to cost no memory.
        self._raw = memoryview(mmap.mmap(-1, slots * _EACH))

    def of(self, slot: int) -> Lines:
        return Lines(self._raw[slot * _EACH : (slot + 1) * _EACH])


class Lines:
    """Of one worker: `size` bytes now, and at most TOGETHER. Its user sees to it that nobody else is at it."""

    __slots__ = ("_size", "_text")

    def __init__(self, raw: memoryview) -> None:
        self._size = raw[:_WORD].cast("Q")
        self._text = raw[_WORD:]

    @property
    def size(self) -> int:
        return self._size[0]

    def add(self, line: bytes) -> bool:
        """False: there is no room left."""
        size = self._size[0]
        end = size + len(line)
        if end > TOGETHER:
            return False
        self._text[size:end] = line
        self._size[0] = end  # last: a worker that dies before has added nothing
        return True

    def text(self) -> bytes:
        return bytes(self._text[: self._size[0]])

    def clear(self) -> None:
        self._size[0] = 0
