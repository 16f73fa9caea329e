"""The file of a unix socket: whose it is, and who may remove it. Standard library only.

Between the question whether anybody listens at a path and the new socket that does, another server must not ask the
same: both would find the old file stale, and the second would remove what the first has just made. So whoever makes or
removes such a file locks the folder it lies in. That leaves nothing behind, and ends with the process that holds it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

# How long another may hold a folder (seconds). Servers hold it for less than a millisecond; in a folder that others
# may write to, anybody can hold it for ever.
PATIENCE = 2.0
_PAUSE = 0.005


@contextmanager
def locked_folder(path: str) -> Iterator[None]:
    """Nobody else makes or removes a socket beside `path` meanwhile. Raises OSError, and BlockingIOError after 2 s."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(fd)


def remove(path: str, inode: tuple[int, int]) -> None:
    """Unlink it while it is that socket (device, inode). Raises OSError if it is, and stays.

    To be called before the socket is closed: until then no other file can have its number.
    """
    try:
        with locked_folder(path):
            status = os.lstat(path)
            if (status.st_dev, status.st_ino) == inode and stat.S_ISSOCK(status.st_mode):
                os.unlink(path)
    except FileNotFoundError:
        pass
