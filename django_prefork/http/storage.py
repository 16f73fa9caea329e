"""Where bodies that arrive and answers that wait are kept: how much of them in memory, and where on disk."""

from __future__ import annotations

from collections.abc import Callable

# Of one body, or one answer: most are smaller, and what is larger goes to disk.
MEMORY = 512 * 1024
# Of all of them in one worker together: ten thousand slow clients must not add up to ten thousand times as much.
MEMORY_OF_ALL = 64 * 1024 * 1024
# Room on disk is asked for in steps of this many bytes: to answer means to look at all workers.
ROOM_STEP = 64 * 1024

#: Asked before bytes go to disk (argument: how many; negative when they are given back); False means: no room.
Room = Callable[[int], bool]


class Storage:
    """What one worker has. `folder` is for temporary files, None: the system's; `left`: bytes of memory not in use."""

    __slots__ = ("folder", "left", "room")

    def __init__(self, folder: str | None = None, room: Room = lambda count: True) -> None:
        self.folder = folder
        self.room = room
        self.left = MEMORY_OF_ALL
