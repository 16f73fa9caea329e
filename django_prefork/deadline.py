"""The time limit of the running request, and what a view may ask of it.

A request that runs longer than its limit gets a `RequestTimeout` raised where it stands: Django's own error page,
logging and `got_request_exception` see it as they see any other exception. Outside a worker, as in `runserver` or in
tests, there is no limit, and asking for one does nothing.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, Protocol, TypeVar

from django_prefork import process

P = ParamSpec("P")
R = TypeVar("R")


class RequestTimeout(Exception):
    """The request runs longer than its `timeout`. Raised in the view, at whatever line it has come to.

    Code that catches it and goes on gets it again a second later; after `timeout_grace` the worker is killed.
    """


def extend(seconds: float) -> None:
    """Give the running request `seconds` more than its limit is now. Does nothing where there is no limit."""
    if _clock is not None and _clock.limit:
        _clock.set_limit(_clock.limit + seconds)


def timeout(seconds: float | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A view that may take `seconds`, counted from the request's beginning; None: as long as it likes."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            if _clock is not None:
                _clock.set_limit(seconds or 0.0)
            return view(*args, **kwargs)

        return limited

    return decorate


class Watched(Protocol):
    """What is known of the running request to whoever sends the signal: in a worker its row on the scoreboard."""

    def since(self) -> float:
        """When it began, or last came forward (monotonic seconds)."""

    def limit(self, seconds: float) -> None:
        """It has that one now; 0: none."""


class Clock:
    """Of one worker: how long the running request may take.

    `usual` is the option `timeout`, 0 for none. `nudge` makes the Arbiter look, when a limit may come before it would.
    """

    def __init__(self, row: Watched, usual: float, nudge: Callable[[], None]) -> None:
        self._row = row
        self._usual = usual
        self._nudge = nudge
        self.limit = usual
        #: When the running request began (monotonic seconds); 0 while none runs.
        self.began = 0.0
        #: Whether the exception was raised in it.
        self.fired = False
        #: Whether anything but the usual was done about it: only then has `end` to be called.
        self.unusual = False
        self._reported = 0.0
        row.limit(usual)

    def use(self) -> None:
        """Be the one that `extend` and `timeout` mean, in this process."""
        global _clock
        _clock = self

    def put_away(self) -> None:
        """From here on nobody's in this process."""
        global _clock
        _clock = None

    def set_limit(self, seconds: float) -> None:
        self.limit = seconds
        self.unusual = True
        self._row.limit(seconds)
        if self.began and 0 < seconds < (self._usual or math.inf):
            self._nudge()

    def end(self) -> bool:
        """The request is over, and `began` 0; whether it was too late."""
        if self.limit != self._usual:
            self.set_limit(self._usual)
        fired, self.fired = self.fired, False
        self.unusual = False
        return fired

    def report(self, **_: Any) -> None:
        """Django has begun to answer with an error: from here on it is left alone. (A receiver.)"""
        self._reported = self.began

    def late(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: the Arbiter thinks the request late. Raises `RequestTimeout` if it is, and may be told."""
        if not self.began or not self.limit or time.monotonic() - self._row.since() < self.limit:
            return  # it has ended since, and another one is not to blame
        if self._reported == self.began or not _in_application(frame):
            return
        self.fired = self.unusual = True
        # Now: on its way out, the exception makes Django close the connection, which leaves the query running.
        process.cancel_queries()
        raise RequestTimeout(f"the request took longer than its timeout of {self.limit:g} s")


_clock: Clock | None = None

_PACKAGE = str(Path(__file__).parent)
# What stands between Django and Django: there, the project's code runs.
_OWN = (__file__, *(str(Path(__file__).with_name("worker") / name) for name in ("naming.py", "shortcuts.py")))
# The methods of `http.response.Response` in which the application runs.
_CALLERS = ("run", "_send_iterable")
# Where Django's WSGI handler lives, and what turns exceptions into error pages around each middleware.
_HANDLER = os.path.join("django", "core", "handlers", "wsgi.py")
_CATCHER = os.path.join("django", "core", "handlers", "exception.py")
_CATCHES = "inner"
# Who runs here when a signal has come.
_JUDGES = ("late", "_in_application")


def _in_application(frame: FrameType | None) -> bool:
    """Whether the project's code runs, with none of the server's own above it, and somebody there to answer for it.

    An exception in the middle of the server's code could lose an answer. In Django's handler it would do so outside of
    the middleware chain, where no error page is made, and a response that is there already would never be closed.
    """
    while frame is not None and frame.f_code.co_filename == __file__ and frame.f_code.co_name in _JUDGES:
        frame = frame.f_back  # a signal while another one was looked at
    innermost = frame
    in_handler = is_caught = False
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE) and name not in _OWN:
            # The places that call the application say by themselves whether they still do.
            calls = frame is not innermost and frame.f_code.co_name in _CALLERS
            runs = calls and getattr(frame.f_locals.get("self"), "in_application", False) is True
            return runs and (is_caught or not in_handler)
        in_handler = in_handler or name.endswith(_HANDLER)
        if name.endswith(_CATCHER):
            if frame.f_code.co_name != _CATCHES:
                return False  # an error page is being made: nobody would catch what is raised there
            is_caught = is_caught or frame is not innermost
        frame = frame.f_back
    return False
