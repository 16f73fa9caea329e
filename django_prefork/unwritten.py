"""Lines of the access log that are not written yet, in memory that outlives the worker which made them.

A worker that has several requests at hand writes their lines together: beside Django, a write(2) for each of them cost
half of what the log did. What a worker leaves unwritten when it is killed, its Arbiter writes.
"""

from __future__ import annotations

import mmap

# Zeros are copied so many at a time, at most, as they take up caches, too. `room` is a multiple of it, or less.
_AT_ONCE = 4096


class Unwritten:
    """Of one worker, in `room` bytes. Its user sees to it that nobody else is at it. Made before the fork.

    Behind the last line there are zeros, which no line has in it: that is how somebody else finds its end.
    """

    def __init__(self, room: int) -> None:
        """Raises OSError where there is no memory."""
        self._memory = memory = mmap.mmap(-1, room)
        self._view = memoryview(memory)
        self._zeros = bytes(min(room, _AT_ONCE))
        #: Put a whole line behind the others; raises ValueError if there is no room left.
        self.add = memory.write
        #: How many bytes there are: of the worker's own.
        self.size = memory.tell

    def text(self) -> memoryview:
        """What this worker has put there, until it is cleared; a copy would push as much out of the caches."""
        return self._view[: self.size()]

    def clear(self) -> None:
        """By this worker."""
        memory, zeros = self._memory, self._zeros
        for start in range(0, self.size(), len(zeros)):
            memory[start : start + len(zeros)] = zeros
        memory.seek(0)

    def wipe(self) -> None:
        """For the next worker."""
        self._memory[:] = bytes(len(self._memory))

    def left(self) -> bytes:
        """What a worker that is dead has put there, without a line that it was only about to."""
        lines, _, _ = self._memory[:].partition(b"\0")
        return lines[: lines.rfind(b"\n") + 1]
