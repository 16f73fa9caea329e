"""The terminal that the server was started at, if it was: closing it sends SIGHUP, and that is no wish for a reload."""

from __future__ import annotations

import os
import select
import sys
import time

# How long after the terminal went a SIGHUP is taken for its (seconds). The kernel sends it in the same instant, a shell
# when it has heard of it itself. One that comes later is somebody's, for a server that outlived its terminal.
JUST_NOW = 2.0


class Terminal:
    """The controlling terminal, held open to hear of its end. `watched`: no, where SIGHUP was ignored, as by nohup."""

    def __init__(self, watched: bool, path: str = "/dev/tty") -> None:
        self.watched = watched
        self.fd = -1
        self._closed_at: float | None = None
        if watched and sys.platform == "linux":  # macOS cannot poll terminals
            try:
                self.fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            except OSError:
                pass  # there is none: a service, a container

    def look(self) -> None:
        if self.fd >= 0:
            poll = select.poll()
            poll.register(self.fd, 0)
            if poll.poll(0):
                os.close(self.fd)
                self.fd = -1
                self._closed_at = time.monotonic()

    @property
    def was_closed(self) -> bool:
        """Just now."""
        self.look()
        return self._closed_at is not None and time.monotonic() - self._closed_at < JUST_NOW
