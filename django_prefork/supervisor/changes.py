"""With `--reload`: what the Supervisor looks at itself while no generation is there that could.

A generation that serves has a watcher, which knows best what the code consists of. While the next one boots, and after
it has failed to, the files that were named last are looked at here. Names only: nothing of the project is read.
"""

from __future__ import annotations

import os
import re
import time

# How often to look (seconds): some thousand files cost a few milliseconds, and only until there is a generation again.
INTERVAL = 0.2
# A file may be written by the boot itself, which would begin again for ever. When one has changed during a boot, the
# next comes when nothing was saved for so long (seconds), from one time to the next; after all of them it is the boot's
# own. Whoever goes on saving does not leave pauses like these and then save in the next boot again.
PAUSES = (0.0, 0.0, 1.0, 2.0)

# What a file was like: when it was written, how large it is, and which one it is; None where there is none.
_Look = tuple[int, int, int]


class Changes:
    """`fd` is a file without a name, in which generations leave the names of their files, each followed by a NUL."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        #: When to look next (monotonic seconds).
        self.next = 0.0
        self._began = 0
        self._since: float | None = None
        self._seen: dict[str, _Look | None] = {}
        #: How many boots each file has changed in since one served; and those that boots write.
        self._restless: dict[str, int] = {}
        self.own: set[str] = set()
        #: The pause that was chosen last.
        self.pause = 0.0

    def begin(self, since: float | None = None) -> None:
        """A generation is about to be started: whatever changes from here on, it may have missed.

        The first one was there before us, `since` then (seconds since 1970).
        """
        self._began = time.time_ns()
        self._since = since
        self._seen = {path: _look(path) for path in self._named() if not path.endswith("/")}
        self.next = time.monotonic() + INTERVAL

    def fail(self) -> None:
        """It has failed: from here on a file that appears in one of the folders may be what was missing."""
        if self._since is not None:  # what was saved before anybody looked
            self._began, self._seen, self._since = int(self._since * 1e9), {}, None
        self._seen.update((path, _look(path)) for path in self._named() if path.endswith("/"))

    def look(self) -> str | None:
        """The name of a file that has changed since `begin()`, if it is time to look."""
        if time.monotonic() < self.next:
            return None
        self.next = time.monotonic() + INTERVAL
        changed: list[str] = []
        for path in self._named():
            look = _look(path)
            if path in self._seen:
                if look == self._seen[path]:
                    continue
            elif path.endswith("/"):
                continue
            elif look is None or look[0] < self._began:  # named since, and as it was
                self._seen[path] = look
                continue
            self._seen[path] = look
            changed.append(path)
        # What a person has saved says more than the folder that it was saved in.
        return min(changed, key=lambda path: path.endswith("/"), default=None)

    def judge(self, path: str) -> float | None:
        """`path` has changed during a boot: after how many seconds another is to begin. None: it is the boot's own."""
        if path in self.own:
            return None
        times = self._restless[path] = self._restless.get(path, 0) + 1
        if times > len(PAUSES):
            self.own.add(path)
            return None
        self.pause = PAUSES[times - 1]
        return self.pause

    def settle(self, path: str) -> None:
        """It has changed while a generation served, or none could: no boot had written it."""
        self._restless = {}
        self.own.discard(path)

    def add(self, text: str) -> None:
        """Take in the files that a traceback names: a generation that does not come far can say no more."""
        names = {name for name in re.findall(r'File "([^"\n]+)", line \d', text) if os.path.isabs(name)}
        names.update(os.path.dirname(name) + "/" for name in list(names) if "site-packages" not in name)
        fresh = names - set(self._named())
        if fresh:
            data = "".join(f"{name}\0" for name in sorted(fresh)).encode("utf-8", "surrogateescape")
            os.pwrite(self.fd, data, os.fstat(self.fd).st_size)

    def _named(self) -> list[str]:
        data = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        return [name for name in data.decode("utf-8", "surrogateescape").split("\0") if name]


def _look(path: str) -> _Look | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
