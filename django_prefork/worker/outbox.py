"""What a client has not taken yet: in memory first, then in an unlinked temporary file; files go out by sendfile."""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
from collections import deque

from django_prefork.http.storage import MEMORY, ROOM_STEP, Storage

# Of each temporary file, in bytes.
_FILE = 8 * 1024 * 1024
# How much is sent by one call. More would have left the processor's caches before it is received: a file of 1 GiB took
# 490 ms of CPU in stretches of 5 MiB, and 310 in these.
AT_ONCE = 512 * 1024
# How much is sent by one turn of the loop: others wait meanwhile, about 2 ms.
_TURN = 4 * 1024 * 1024
# How much one turn of the loop reads of a file where the kernel cannot send it itself.
_PIECE = 256 * 1024


class _Part:
    """A stretch of a file: `count` bytes from `offset` on. It owns the descriptor."""

    __slots__ = ("count", "descriptor", "offset", "ours")

    def __init__(self, descriptor: int, offset: int, count: int, *, ours: bool) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.count = count
        self.ours = ours  # a temporary file, and not one of the application's

    def close(self) -> None:
        os.close(self.descriptor)


class Outbox:
    """`held` counts the bytes kept in memory or in temporary files, not those of the application's files.

    `storage` is asked for room before bytes go to disk, and told when they are given back.
    """

    __slots__ = ("_memory", "_on_disk", "_parts", "_reserved", "_storage", "held")

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._on_disk = 0  # sizes of the temporary files: what was sent is given back with its file
        self._reserved = 0
        self._parts: deque[bytearray | _Part] = deque()
        self._memory = 0
        self.held = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def fits(self, size: int) -> bool:
        """Whether so many bytes more would stay in memory."""
        return self._memory + size <= MEMORY and size <= self._storage.left

    def add(self, data: bytes | memoryview) -> None:
        """Keep `data`. Raises OSError when the disk is full, or the server's `spool_limit` reached."""
        view = memoryview(data)
        if not view:
            return
        if self.fits(len(view)):
            self._memory += len(view)
            self._storage.left -= len(view)
            self.held += len(view)
            # Copied: a view of the last piece of a large body would keep all of it, and one object for each of a
            # stream's small pieces costs ten times what they hold.
            last = self._parts[-1] if self._parts else None
            if isinstance(last, bytearray):
                last += view
            else:
                self._parts.append(bytearray(view))
        else:
            self._add_to_disk(view)

    def add_file(self, descriptor: int, offset: int, count: int) -> None:
        """Keep a stretch of a file, and the descriptor, which is closed when it is sent or given up."""
        self._parts.append(_Part(descriptor, offset, count, ours=False))

    def _add_to_disk(self, view: memoryview) -> None:
        missing = self._on_disk + len(view) - self._reserved
        if missing > 0:
            missing = max(missing, ROOM_STEP)
            if not self._storage.room(missing):
                raise OSError(errno.EDQUOT, "spool_limit reached")
            self._reserved += missing
        while view:
            part = self._parts[-1] if self._parts else None
            # A file is given back when all of it is sent: small ones, or a long stream would keep what is long gone.
            if not isinstance(part, _Part) or not part.ours or part.offset + part.count >= _FILE:
                with tempfile.TemporaryFile(dir=self._storage.folder) as file:
                    part = _Part(os.dup(file.fileno()), 0, 0, ours=True)
                self._parts.append(part)
            end = part.offset + part.count
            count = os.pwrite(part.descriptor, view[: max(1, _FILE - end)], end)
            part.count += count
            self.held += count
            self._on_disk += count
            view = view[count:]

    def flush(self, sock: socket.socket) -> int:
        """Send what `sock` takes now; return how many bytes that was. Raises OSError when the client is gone.

        There may be more that it would take: a client that is quick gets `_TURN` bytes at a time.
        """
        total = 0
        while self._parts and total < _TURN:
            part = self._parts[0]
            if isinstance(part, _Part) and not part.count:
                self._give_back(part)
                self._parts.popleft()
                continue
            try:
                count = sock.send(part) if isinstance(part, bytearray) else _send_part(sock, part)
            except BlockingIOError:
                break
            total += count
            if isinstance(part, bytearray):
                self._memory -= count
                self._storage.left += count
                self.held -= count
                del part[:count]
                if not part:
                    self._parts.popleft()
            elif part.ours:
                self.held -= count
        return total

    def close(self) -> None:
        """Give up what was not sent; may be called twice."""
        while self._parts:
            part = self._parts.popleft()
            if isinstance(part, _Part):
                self._give_back(part)
        self._storage.left += self._memory
        self._memory = 0
        if self._reserved:  # by what the disk then had no room for
            self._storage.room(-self._reserved)
            self._reserved = 0

    def _give_back(self, part: _Part) -> None:
        part.close()
        if part.ours:
            self._on_disk -= part.offset + part.count
            self._storage.room(self._on_disk - self._reserved)
            self._reserved = self._on_disk


def _send_part(sock: socket.socket, part: _Part) -> int:
    if sys.platform == "linux":
        count = os.sendfile(sock.fileno(), part.descriptor, part.offset, min(part.count, AT_ONCE))
    else:
        data = os.pread(part.descriptor, min(part.count, _PIECE), part.offset)
        count = sock.send(data) if data else 0
    if not count:
        raise OSError("the file became shorter while it was sent")
    part.offset += count
    part.count -= count
    return count
