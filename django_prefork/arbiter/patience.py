"""While something of `warmup` is done: how long that may take, so that a start comes to an end.

A path has the limit that its request would have in a worker, and the same happens when that is over: `RequestTimeout`
in the view, again and again, and after `timeout_grace` the end, which here is the start's. What a function of `warmup`
may take nobody knows; it is named when it takes long.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.core.signals import got_request_exception

from django_prefork import process
from django_prefork.config import Config
from django_prefork.deadline import Clock
from django_prefork.worker.guard import stack_of

logger = logging.getLogger("django_prefork")

# As often as a worker is told (seconds).
_AGAIN = 1.0
# To say why (seconds): whoever hangs may hold the lock of a log's handler, or the interpreter's.
_LAST_WORDS = 1.0


class TookTooLong(Exception):
    """A path was over its limit (seconds)."""

    def __init__(self, limit: float) -> None:
        self.limit = limit


class Patience:
    """Of the main thread, in an Arbiter that boots."""

    def __init__(self, config: Config) -> None:
        # Who sets `timeout` to 0 says nothing of starts.
        self._usual = config.timeout or config.boot_timeout
        self._grace = config.timeout_grace
        self._long = config.boot_timeout
        self._began = 0.0
        self._limit = 0.0
        self._armed = False

    def with_path(self, path: str, ask: Callable[[], None]) -> None:
        """Raises what `ask` does, or `TookTooLong` in place of that; ends the process if nothing else helps."""
        clock = Clock(self, self._usual, lambda: None)
        projects = signal.setitimer(signal.ITIMER_REAL, 0)
        before = signal.signal(signal.SIGALRM, clock.late)
        got_request_exception.connect(clock.report)
        clock.use()
        try:
            with self._watched(path):
                self._armed = True
                clock.began = self._began
                self.limit(self._usual)
                ask()
        except Exception as error:
            if clock.fired:
                raise TookTooLong(clock.limit) from error
            raise
        else:
            if clock.fired:
                raise TookTooLong(clock.limit)
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            clock.put_away()
            got_request_exception.disconnect(clock.report)
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, *projects)
            if clock.fired:
                process.close_databases()  # it may have been in the middle of a query

    def with_function(self, name: str, call: Callable[[], None]) -> None:
        """It has no limit. Raises what `call` does."""
        self._limit = 0.0
        with self._watched(name):
            call()

    # For the clock, which in a worker asks the scoreboard.

    def since(self) -> float:
        return self._began

    def limit(self, seconds: float) -> None:
        """A view may have one of its own; 0: none."""
        self._limit = seconds
        if self._armed:
            left = max(0.001, self._began + seconds - time.monotonic()) if seconds else 0.0
            signal.setitimer(signal.ITIMER_REAL, left, _AGAIN)
            if seconds:
                # C code that keeps the interpreter's lock silences the thread below, and not this one.
                faulthandler.dump_traceback_later(left + self._grace + 2 * _LAST_WORDS, exit=True, file=2)
            else:
                faulthandler.cancel_dump_traceback_later()

    # -- the thread ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _watched(self, name: str) -> Iterator[None]:
        pid = os.getpid()
        self._began = time.monotonic()
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(name, over), name="prefork-warmup", daemon=True)
        # Signals are for the main thread, which has to be woken by them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield
        finally:
            if os.getpid() != pid:
                os._exit(1)  # a child that the application forked must not come back to be another Arbiter
            over.set()
            thread.join()  # nothing may run beside a fork

    def _watch(self, name: str, over: threading.Event) -> None:
        named = False
        while not over.wait(min(_AGAIN, self._long)):
            age = time.monotonic() - self._began
            if self._limit and age >= self._limit + self._grace:
                self._give_up(name, age)
            if age >= self._long and not named:
                named = True
                logger.warning("warm-up of %s still runs after %.1f s: nobody is served before it ends", name, age)

    def _give_up(self, name: str, age: float) -> None:
        faulthandler.dump_traceback_later(_LAST_WORDS, exit=True, file=2)
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        logger.error("warm-up of %s does not end, not even by an exception: this start does\n%s", name, stack_of(frame))
        os._exit(1)
