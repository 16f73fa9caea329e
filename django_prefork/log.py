"""Loggers, their handler and formatter, and the access log.

`django_prefork` tells the server's life in lines like `worker=2 gen=1 pid=77 ready`; `django_prefork.access` has one
record for each answer. Both go through the project's LOGGING where that configures them. Nothing here ever raises for
a log that cannot be written: the line is dropped, the request goes on.
"""

from __future__ import annotations

import logging
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.core.management.color import color_style
from django.http import HttpRequest
from django.utils.log import AdminEmailHandler
from django.utils.termcolors import colorize

from django_prefork.access_format import Asked, Line, escape, line_maker, record_fields
from django_prefork.config import DEBUG_DEFAULT, Config, ConfigError
from django_prefork.unwritten import Unwritten

__all__ = ["AccessLog", "LineFormatter", "StderrHandler", "access", "escape", "logger", "setup"]

logger = logging.getLogger("django_prefork")
access = logging.getLogger("django_prefork.access")


def _write_whole(fd: int, data: bytes | memoryview, patience: int | None) -> str:
    """Write a whole record with one write(2). Returns why it was dropped, or an empty text.

    A full pipe whose reader sleeps would hold the process for good, and O_NONBLOCK is no way out: it belongs to the
    open file, which other processes share. So this asks first, and waits at most `patience` milliseconds for room;
    None does not ask, which is right for files.
    """
    try:
        if patience is not None:
            room = select.poll()
            room.register(fd, select.POLLOUT)
            if not room.poll(patience):
                return "nobody reads it"
        while data:  # more than once only if a signal, or the end of the room, cut the record
            data = data[os.write(fd, data) :]
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


# Until a log is found stuck it gets this many milliseconds to go on, afterwards none until it does.
_PATIENCE = 100
# So many bytes of lines are written to a file at once, at most. A write(2) takes 50 us beside Django, whose code leaves
# nothing of the kernel's in the caches: lines that wait for 20 ms and fill 32 KiB cost 1.3 us more each.
_TOGETHER = 65536
# While so many requests are served in each turn of the loop, lines wait for those of the next turn, but no longer than
# this (seconds).
_MANY = 4
_GATHER = 0.05

_COLORS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class LineFormatter(logging.Formatter):
    """`[2026-11-23 12:00:00 +0000] [pid] [INFO] message`, and a traceback below; `color` marks what went wrong."""

    def __init__(self, color: bool = False) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S %z")
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = record.levelname
        if self._color and record.levelno in _COLORS:
            level = colorize(level, fg=_COLORS[record.levelno], opts=("bold",))
        return f"[{self.formatTime(record, self.datefmt)}] [{record.process}] [{level}] {record.message}"


class StderrHandler(logging.Handler):
    """Writes each record, traceback and all, to standard error at once, so that processes do not mix their lines."""

    _stuck = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
        except Exception as error:  # arguments that do not fit; what was meant is worth more than where it went wrong
            text = f"[{record.process}] [{record.levelname}] {record.msg!r} ({error!r})\n"
        stream = sys.stderr  # now, as it may have been replaced; None where the process has none
        try:
            fd = stream.fileno()
        except (AttributeError, OSError, ValueError):
            try:
                stream.write(text)
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass
        else:
            data = text.encode("utf-8", "backslashreplace")
            self._stuck = bool(_write_whole(fd, data, 0 if self._stuck else _PATIENCE))


# What goes well with workers and generations, and comes with each file that is saved.
_ROUTINE = re.compile(r"(?:worker=\d+ |arbiter gen=\d+ leaves)")


def setup(config: Config, verbosity: int = 1, color: bool | None = None, brief: bool = False) -> None:
    """Make sure that lifecycle lines and the errors of views are seen on standard error, unless the project sees to it.

    To be called before any fork, and after the application was loaded, since that configures logging once more; a
    second call begins anew. `verbosity` 0 shows warnings and errors only, 2 and more debug lines, too. `color` None
    means: where standard error is a terminal. `brief` leaves out how workers come and go. `config` has no say in this
    so far.
    """
    if color is None:
        color = _is_colorful(sys.stderr)
    logger.handle = _handle  # type: ignore[method-assign]
    for name in (logger.name, "django", "django.request"):
        _detach(logging.getLogger(name))
    # LOGGING without `"disable_existing_loggers": False` silences every logger that was there before it, unless named.
    for name in list(logging.root.manager.loggerDict):
        if name == "django.request" or f"{name}.".startswith("django_prefork."):
            logging.getLogger(name).disabled = False
    if not any(_reached(logger)):
        _attach(logger, logging.NOTSET, color)
        if brief:
            logger.handlers[-1].addFilter(
                lambda record: record.levelno != logging.INFO or not _ROUTINE.match(record.getMessage())
            )
        logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
        logger.propagate = False
    requests = logging.getLogger("django.request")
    if not _shows_errors(requests):
        _attach(logging.getLogger("django") if requests.propagate else requests, logging.ERROR, color)


def _handle(record: logging.LogRecord) -> None:
    """As any logger does it, but that no process of the server ends by a handler of the project's that raises."""
    try:
        type(logger).handle(logger, record)
    except Exception as error:
        last = StderrHandler()
        last.setFormatter(LineFormatter())
        last.handle(record)
        why = ("a handler of LOGGING failed at the line before: %r", (error,))
        last.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, *why, None))


def shows_errors() -> bool:
    """Whether a view's exception becomes visible anywhere, with nothing but the project's own LOGGING."""
    return _shows_errors(logging.getLogger("django.request"))


def _is_colorful(stream: Any) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("DJANGO_COLORS") == "nocolor" or os.environ.get("TERM") == "dumb":
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _attach(to: logging.Logger, level: int, color: bool) -> None:
    handler = StderrHandler(level)
    handler.setFormatter(LineFormatter(color))
    # Answers come by only on their way up from a handler that the project gave them.
    handler.addFilter(lambda record: record.name != access.name)
    to.addHandler(handler)


def _detach(of: logging.Logger) -> None:
    """Undo what an earlier `setup` did."""
    for handler in of.handlers[:]:
        if isinstance(handler, StderrHandler):
            of.removeHandler(handler)
            if of is logger:
                of.setLevel(logging.NOTSET)
                of.propagate = True


def _reached(start: logging.Logger) -> Iterator[logging.Handler]:
    """The project's handlers that a record of this logger comes to."""
    current: logging.Logger | None = start
    while current:
        yield from (handler for handler in current.handlers if not isinstance(handler, StderrHandler))
        current = current.parent if current.propagate else None


def _shows_errors(requests: logging.Logger) -> bool:
    """Whether a view's exception would become visible anywhere.

    By Django's defaults it does not when DEBUG is off: the console is for DEBUG only, and mail needs ADMINS. What
    filters do cannot be read off them, so they are asked about a record such as Django makes.
    """
    if not requests.isEnabledFor(logging.ERROR):
        return True  # somebody wants it so, and a handler would not change it
    error = RuntimeError("django-prefork asks whether anybody would see this")
    record = requests.makeRecord(
        requests.name, logging.ERROR, __file__, 0, "Internal Server Error: %s", ("/",), (RuntimeError, error, None),
        extra={"status_code": 500, "request": HttpRequest()},
    )  # fmt: skip
    return any(_shows(handler, record) for handler in _reached(requests))


def _shows(handler: logging.Handler, record: logging.LogRecord) -> bool:
    try:
        if record.levelno < handler.level or not handler.filter(record):
            return False
    except Exception:  # a filter that cannot bear this record; rather see an error twice than never
        return False
    if isinstance(handler, AdminEmailHandler):
        return bool(settings.ADMINS) or type(handler).send_mail is not AdminEmailHandler.send_mail
    return not isinstance(handler, logging.NullHandler)


def _colored(line: Line) -> Line:
    """`line` in the colours that runserver gives to statuses; DJANGO_COLORS may choose others."""
    style: Any = color_style(force_color=True)
    by_hundreds = [style.HTTP_SERVER_ERROR, style.HTTP_INFO, style.HTTP_SUCCESS, style.HTTP_REDIRECT]
    by_hundreds += [style.HTTP_BAD_REQUEST, style.HTTP_SERVER_ERROR]
    special = {304: style.HTTP_NOT_MODIFIED, 404: style.HTTP_NOT_FOUND}

    def colored(request: Asked, status: int, *rest: Any) -> bytes:
        paint = special.get(status) or by_hundreds[min(status // 100, 5)]
        return f"{paint(line(request, status, *rest).decode()[:-1])}\n".encode()

    return colored


class AccessLog:
    """Where answers are logged: to a descriptor, to the project's handlers, or both.

    Each line is written at once, whole, but in a worker that has said `gather`. Complaints about itself go to the
    `django_prefork` logger, at most one a minute.
    """

    def __init__(self, line: Line, destination: str | None, to_logger: bool, gathers: bool = True) -> None:
        """`destination` is a path, "-" for standard output, or None. Raises OSError if it cannot be opened."""
        self._line = line
        self._gathers = gathers
        #: Whether the project's own handlers get the records.
        self.to_logger = to_logger
        self._to_file = destination is not None
        self._quiet_until = 0.0
        self._stuck = False
        self._path = ""
        self._fd = -1
        if destination == "-":
            try:
                self._fd = sys.stdout.fileno()
            except (AttributeError, OSError, ValueError):
                pass  # there is no standard output, and number 1 may be a client's socket by now
        elif destination is not None:
            # Absolute, since the application may change the folder before the file is opened again.
            self._path = os.path.abspath(destination)
            self._fd = self._open()
        # A file never makes anybody wait, so that asking first would be for nothing.
        self._is_file = self._fd >= 0 and stat.S_ISREG(os.fstat(self._fd).st_mode)
        # Of each slot, and what this worker has not written itself yet.
        self._unwritten: dict[int, Unwritten] = {}
        self._own: Unwritten | None = None
        # Where a line goes at first; ValueError if there is no room for it.
        self._put: Callable[[bytes], object] = self._write if self._to_file else _nowhere
        self._write_at = 0.0

    @classmethod
    def from_config(cls, config: Config, color: bool | None = None, gathers: bool = True) -> AccessLog | None:
        """The access log that options and LOGGING ask for, or None. Raises ConfigError if the file cannot be opened.

        `color` is for people at a terminal, and for no other format than console; None means: where there is one.
        `gathers`: workers may write several lines at once. To be called after `setup`, and before the fork, so that all
        workers share one open file.
        """
        to_logger = _is_configured(access)
        destination, form = config.access_log, config.access_log_format
        if config.sources["access_log"] == DEBUG_DEFAULT:
            # Nobody has asked for it: what LOGGING does with answers is enough, and else it is for people.
            if to_logger:
                destination = None
            elif config.sources["access_log_format"] == "default":
                form = "console"
        if destination is None and not to_logger:
            return None
        line = line_maker(form)
        if form == "console" and destination == "-" and not to_logger:
            line = _colored(line) if color or (color is None and _is_colorful(sys.stdout)) else line
        try:
            return cls(line, destination, to_logger, gathers)
        except OSError as error:
            raise ConfigError(
                f"{config.sources['access_log']} says {config.access_log!r}, but access_log cannot be written there"
                f" ({error.strerror}): choose a folder that exists and may be written to, or - for standard output."
            ) from None

    def log(self, request: Asked, status: int, length: int, duration: float, slot: int, generation: int) -> None:
        """Log an answer; never raises.

        `length` is the body's bytes that were sent, `duration` seconds. Whatever the client said may be passed as it
        came.
        """
        now = time.time()
        line = self._line(request, status, length, duration, slot, generation, now)
        try:
            # No lock: the guard flushes only while the application runs, and this is between two requests.
            self._put(line)
        except ValueError:
            self.flush()
            try:
                self._put(line)
            except ValueError:
                self._write(line)
        if self.to_logger:
            self._pass_on(line, record_fields(request, status, length, duration, slot, generation, now))

    # -- lines that are written together -------------------------------------------------------------------------------

    def prepare(self, slot: int) -> None:
        """By the Arbiter, which is about to fork a worker in `slot`. Raises OSError where there is no memory."""
        if self._to_file and self._gathers and slot not in self._unwritten:
            # To a pipe no more than it takes whole, never mixed with the lines of others.
            self._unwritten[slot] = Unwritten(_TOGETHER if self._is_file else select.PIPE_BUF)

    def gather(self, slot: int) -> bool:
        """By the worker in `slot`: from now on lines wait for `flush`. Any thread may call it, but not beside `log`.

        False: none ever will, since each is to be written at once, or the project's handlers alone get them.
        """
        own = self._own = self._unwritten.get(slot)
        if own is not None:
            self._put = own.add
        return own is not None

    def hold(self, now: float, served: int) -> bool:
        """Between two turns of the loop, of which one `served` so many: write what waits, or wait for more.

        True: for more. The next turn must come at once, and be followed by a call, whether it had anything to serve or
        not. `now` is monotonic seconds.
        """
        own = self._own
        if own is None or not own.size():
            return False
        if served >= _MANY and now < self._write_at:
            return True
        self.flush()
        self._write_at = now + _GATHER
        return False

    def flush(self) -> None:
        """Write what waits."""
        own = self._own
        if own is not None and own.size():
            self._write(own.text())
            # Only now: who dies in between leaves lines that are written twice, and not lines that never are.
            own.clear()

    def rescue(self, slot: int) -> None:
        """By the Arbiter: write what the worker in `slot` had not when it died."""
        unwritten = self._unwritten.get(slot)
        if unwritten is not None and (lines := unwritten.left()):
            self._write(lines)
            # Not replaced by new memory: siblings hold on to this for as long as they live.
            unwritten.wipe()

    def _write(self, data: bytes | memoryview) -> None:
        if problem := _write_whole(self._fd, data, None if self._is_file else 0 if self._stuck else _PATIENCE):
            count = bytes(data).count(b"\n")
            self._complain("line dropped" if count == 1 else f"{count} lines dropped", problem)
        self._stuck = bool(problem)

    def _pass_on(self, line: bytes, fields: dict[str, Any]) -> None:
        """To the project's handlers: some 10 µs more than a file costs, for a LogRecord and what handlers do."""
        try:
            access.info(line[:-1].decode(), extra=fields)
        except Exception as error:  # a handler of the project's
            self._complain("handler failed", repr(error))

    def reopen(self) -> None:
        """Open the file again, as something (logrotate) has moved it away; if that fails, go on with the old one."""
        self.flush()
        if not self._path or self._fd < 0:
            return
        try:
            fresh = self._open()
        except OSError as error:
            logger.warning("access log: cannot reopen %s, going on with the old file: %s", self._path, error.strerror)
            return
        # In one step: no other thread finds the number closed, or given to somebody else.
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)

    def close(self) -> None:
        """Close the file. Standard output stays open."""
        if self._path and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        # O_NONBLOCK is for a FIFO, which else would hold the start until it has a reader; files do not know it.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)

    def _complain(self, what: str, why: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + 60
            logger.warning("access log: %s: %s", what, why)


def _nowhere(line: bytes) -> None:
    """Only the project's handlers get it."""


def _is_configured(of: logging.Logger) -> bool:
    """Whether LOGGING wants the records: it gives the logger handlers, or a level, and handlers above it."""
    if of.handlers and of.level == logging.NOTSET:
        of.setLevel(logging.INFO)  # else it is the root's, WARNING, and the handlers would never get anything
    return of.level != logging.NOTSET and any(_reached(of)) and of.isEnabledFor(logging.INFO)
