"""Linux says when something happens in a folder (inotify(7)): a hint that it is worth looking, and no more than that.

It is not told what happens on network file systems, and not on those that a virtual machine shares: whoever uses this
looks from time to time in any case.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_CLOSE_WRITE, _ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x4, 0x40, 0x80, 0x100, 0x200
_OVERFLOW = 0x4000
_ONLYDIR = 0x01000000
# Not each write: a file that is being written is looked at once it is closed.
_WANTED = _CLOSE_WRITE | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_HEAD = struct.Struct("iIII")


class Folders:
    """`fd` becomes readable when something happens in a watched folder; -1 where there is no inotify."""

    def __init__(self) -> None:
        self.fd = -1
        self._of: dict[str, int] = {}
        #: By watch descriptor: the names that matter there; None means all.
        self._names: dict[int, frozenset[str] | None] = {}
        #: Whether every folder is watched: the kernel has a limit (fs.inotify.max_user_watches).
        self.complete = False
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, folders: dict[str, frozenset[str] | None]) -> None:
        """Watch these folders, each with the names that matter in it."""
        if self.fd < 0:
            return
        self.complete = True
        for folder, names in folders.items():
            number = self._of.get(folder)
            if number is None:
                number = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), _WANTED)
                if number < 0:
                    self.complete = False
                    continue
                self._of[folder] = number
            self._names[number] = names

    def read(self) -> bool:
        """Take what there is; whether any of it matters."""
        matters = False
        try:
            while data := os.read(self.fd, 65536):
                matters = any(self._matters(*event) for event in _events(data)) or matters
        except BlockingIOError:
            pass
        return matters

    def _matters(self, number: int, mask: int, name: str) -> bool:
        if mask & _OVERFLOW or not name:  # too much at once; or the folder itself
            return True
        names = self._names.get(number, frozenset())
        return names is None or name in names


def _events(data: bytes) -> Iterable[tuple[int, int, str]]:
    at = 0
    while at < len(data):
        number, mask, _, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield number, mask, os.fsdecode(data[at : at + size].rstrip(b"\0"))
        at += size
