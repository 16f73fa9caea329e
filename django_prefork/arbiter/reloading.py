"""With `--reload`: what the Arbiter does when a file has changed.

Who watches is a process of its own (`watcher.py`). What a receiver of Django's `file_changed` deals with, as templates
and translations, is dealt with here, where it is loaded: then workers forked anew have it, in milliseconds. All else is
new code, and a new generation.

Workers that are forked between two changes belong to an edition: they share a pipe whose end tells them that it is
over.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from django.utils import autoreload

from django_prefork import process, signals
from django_prefork.arbiter import fork_safety, policy, watcher
from django_prefork.scoreboard import anonymous_file
from django_prefork.worker.news import News, send_change

logger = logging.getLogger("django_prefork")


class Reloading:
    """`watched` is the file of names for the Supervisor; `began` when this process did, in seconds since 1970.

    `title` is the watcher's in `ps`; `close` is called in the watcher, and closes there what is none of its business.
    """

    def __init__(self, watched: int, began: float, title: str, close: Callable[[], None]) -> None:
        self._watched = watched
        self._began = began
        self._title = title
        self._close = close
        self._sender = autoreload.StatReloader()
        self._words = b""
        self._pid = 0
        #: Held open here alone: its end tells the watcher that the Arbiter is gone.
        self._tie = -1
        self._failures = 0
        self._start_at = 0.0
        #: The watcher's end of it; where its changes are read; workers write their modules, the watcher reads them.
        self.fd, self._changes = os.pipe()
        os.set_blocking(self.fd, False)
        self._modules, self._modules_write = os.pipe()
        # A worker must not wait for a watcher that is gone.
        os.set_blocking(self._modules_write, False)
        self._known: frozenset[str] = frozenset()
        self._edition = -1, -1, -1
        self._begin_edition()
        signals.post_fork.connect(self._in_worker)

    # -- the watcher ---------------------------------------------------------------------------------------------------

    def manage(self) -> None:
        """See to it that there is a watcher."""
        if self._pid:
            found, _ = os.waitpid(self._pid, os.WNOHANG)
            if not found:
                return
            self._forget()
            self._failed("the watcher has ended")
        if time.monotonic() >= self._start_at:
            self._start()

    def _start(self) -> None:
        fork_safety.clean()
        self._known = frozenset(sys.modules)
        tie, tie_write = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = fork_safety.fork()
            if pid == 0:
                try:
                    for fd in (self._modules_write, tie_write, self._edition[0], self._edition[2]):
                        os.close(fd)
                    self._close()
                    process.set_title(self._title)
                    watcher.watch(self._changes, self._modules, tie, self._watched, self._began)
                finally:
                    os._exit(1)
        except OSError as error:
            os.close(tie_write)
            self._failed(f"cannot fork the watcher ({error.strerror})")
        else:
            self._pid = pid
            self._tie = tie_write
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(tie)

    def _failed(self, why: str) -> None:
        self._failures += 1
        delay = policy.backoff(self._failures, 0.0)
        self._start_at = time.monotonic() + delay
        logger.error("%s: another starts in %.1f s", why, delay)

    def _forget(self) -> None:
        os.close(self._tie)
        self._pid, self._tie = 0, -1

    def end(self) -> None:
        """No change matters any more."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._forget()

    # -- changes -------------------------------------------------------------------------------------------------------

    def look(self) -> tuple[list[str], list[str]]:
        """What has changed since: paths that were dealt with here, and what is to be said about those that were not."""
        try:
            while data := os.read(self.fd, 65536):
                self._words += data
        except BlockingIOError:
            pass
        *said, self._words = self._words.split(b"\0")
        handled, others = [], []
        for words in dict.fromkeys(said):
            text = os.fsdecode(words)
            path = text.partition(" ")[2]
            if self._deal_with(path):
                handled.append(path)
            else:
                others.append(text)
        return handled, others

    def _deal_with(self, path: str) -> bool:
        before = set(threading.enumerate())
        try:
            return send_change(path, self._sender)
        finally:
            # Nothing may run here beside the forks. A timer that a receiver started is of use in the workers alone.
            for thread in set(threading.enumerate()) - before:
                if isinstance(thread, threading.Timer):
                    thread.cancel()
                thread.join(1.0)

    def begin_edition(self, paths: list[str]) -> None:
        """Tell all workers there are which files have changed; those forked from here on know."""
        changed, ends, file = self._edition
        os.pwrite(file, b"".join(os.fsencode(path) + b"\0" for path in paths), 0)
        for fd in (changed, ends, file):
            os.close(fd)
        self._begin_edition()

    def _begin_edition(self) -> None:
        changed, ends = os.pipe()
        self._edition = changed, ends, anonymous_file("prefork-changed")

    def forget(self) -> None:
        """In a child: what is held by nobody but the Arbiter."""
        for fd in (self._edition[1], self._tie, self.fd):
            if fd >= 0:
                os.close(fd)

    def _in_worker(self, **_: Any) -> None:
        changed, _ends, paths = self._edition
        for fd in (self._changes, self._modules):  # the watcher's
            os.close(fd)
        News(changed, paths, self._modules_write, self._known).start()
