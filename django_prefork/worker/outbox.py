"""What a client has not taken yet: in memory first, then in an unlinked temporary file; files go out by sendfile."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections import deque

# Beyond this, what waits for one client waits on disk.
MEMORY = 512 * 1024
# How much one turn of the loop reads of a file where the kernel cannot send it itself.
_PIECE = 256 * 1024


class _Part:
    """A stretch of a file: `count` bytes from `offset` on. It owns the descriptor unless `shared`."""

    __slots__ = ("count", "descriptor", "offset", "shared")

    def __init__(self, descriptor: int, offset: int, count: int, *, shared: bool) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.count = count
        self.shared = shared

    def close(self) -> None:
        if not self.shared:
            os.close(self.descriptor)


class Outbox:
    """`held` counts the bytes kept in memory or in the temporary file, not those of the application's files."""

    __slots__ = ("_disk", "_folder", "_memory", "_parts", "_written", "held")

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._parts: deque[memoryview | _Part] = deque()
        self._memory = 0
        self._disk = -1
        self._written = 0
        self.held = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, data: bytes | memoryview) -> None:
        """Keep `data`. Raises OSError when the disk is full."""
        view = memoryview(data)
        if self._memory + len(view) <= MEMORY:
            self._memory += len(view)
            self._parts.append(view)
        else:
            self._add_to_disk(view)
        self.held += len(view)

    def add_file(self, descriptor: int, offset: int, count: int) -> None:
        """Keep a stretch of a file, and the descriptor, which is closed when it is sent or given up."""
        self._parts.append(_Part(descriptor, offset, count, shared=False))

    def _add_to_disk(self, view: memoryview) -> None:
        if self._disk < 0:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                self._disk = os.dup(file.fileno())
        start = self._written
        while view:
            count = os.pwrite(self._disk, view, self._written)
            self._written += count
            view = view[count:]
        count = self._written - start
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _Part) and last.shared:
            last.count += count
        else:
            self._parts.append(_Part(self._disk, start, count, shared=True))

    def flush(self, sock: socket.socket) -> int:
        """Send what `sock` takes now; return how many bytes that was. Raises OSError when the client is gone."""
        total = 0
        while self._parts:
            part = self._parts[0]
            try:
                count = sock.send(part) if isinstance(part, memoryview) else _send_part(sock, part)
            except BlockingIOError:
                break
            total += count
            if isinstance(part, memoryview):
                self._memory -= count
                self.held -= count
                if count < len(part):
                    self._parts[0] = part[count:]
                    continue
            else:
                if part.shared:
                    self.held -= count
                if part.count:
                    continue
                part.close()
            self._parts.popleft()
        return total

    def close(self) -> None:
        """Give up what was not sent; may be called twice."""
        while self._parts:
            part = self._parts.popleft()
            if isinstance(part, _Part):
                part.close()
        if self._disk >= 0:
            os.close(self._disk)
            self._disk = -1


def _send_part(sock: socket.socket, part: _Part) -> int:
    if sys.platform == "linux":
        count = os.sendfile(sock.fileno(), part.descriptor, part.offset, part.count)
    else:
        data = os.pread(part.descriptor, min(part.count, _PIECE), part.offset)
        count = sock.send(data) if data else 0
    if not count:
        raise OSError("the file became shorter while it was sent")
    part.offset += count
    part.count -= count
    return count
