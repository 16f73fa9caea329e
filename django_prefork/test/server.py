"""A real server for tests: an Arbiter and its workers, forked from the process that runs the tests.

That process takes the Supervisor's part. It holds the write end of the generation's pipe, so that the server ends by
itself when the test run does, however that ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
import unittest
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

from django.conf import settings
from django.contrib.staticfiles.utils import check_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.servers.basehttp import get_internal_wsgi_application
from django.db import connections
from django.test.testcases import _MediaFilesHandler, _StaticFilesHandler

from django_prefork import log, process
from django_prefork.arbiter import fork_safety
from django_prefork.arbiter.arbiter import Arbiter
from django_prefork.arbiter.listeners import Listener, listen_all, wanted
from django_prefork.scoreboard import Scoreboard
from django_prefork.test.child import leave_the_tests
from django_prefork.test.options import configure
from django_prefork.worker import handoff

# How much longer than the server itself this process waits for its end (seconds); it names what it has to kill.
_PATIENCE = 3.0
# A test fails when it has the answer; the worker still has to log it. So long that is waited for (seconds).
_SETTLING = 2.0
# So much of what the server said is shown (bytes), the last of it.
_SHOWN = 64 * 1024


class ServerError(Exception):
    """The server did not start, or has ended. The text says why, and what the server said."""


class PreforkServer:
    """The project, served from a process of its own. `url` is where; `stop()` leaves nothing behind.

    `options` are as in `settings.PREFORK`, and stronger. `databases` are aliases that the server has to share with the
    tests; None: all. Not for threads: start and stop it in the thread that runs the tests.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 0,
        *,
        options: Mapping[str, Any] | None = None,
        static_handler: Callable[..., Any] | None = None,
        databases: Iterable[str] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._options = dict(options or {})
        self._static_handler = static_handler
        self._databases = databases
        self._pid = 0
        self._board: Scoreboard | None = None
        self._output: BinaryIO | None = None
        self._read_to = 0
        #: Whether a test has used the workers that are there.
        self._used = False
        # Plain numbers: a forked child closes them without knowing more (`_in_a_child`).
        self._life = self._control = self._presence = -1

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return self.url + path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Return when all workers are ready. Raises ServerError, ImproperlyConfigured, ConfigError or ListenError."""
        assert not self._pid, "it runs already"
        _check_databases(self._databases)
        if "django.contrib.staticfiles" in settings.INSTALLED_APPS:
            check_settings()  # here, where it is the test's own exception
        self._config = configure(self.host, self.port, self._options)
        listeners = listen_all(wanted(self._config), self._config.backlog)
        self.port = int(listeners[0].port)
        self._board = Scoreboard.create()
        queues = handoff.make()
        life, self._life = os.pipe()
        # Each of the server's processes holds the write end, so that its end says that the last of them is gone.
        self._presence, present = os.pipe()
        ours, theirs = socket.socketpair()
        self._control = ours.detach()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server
        self._read_to = 0
        control = theirs.detach()
        passed = [life, present, control, *(fd for queue in queues for fd in queue)]
        process.close_databases(pools=True)
        for stream in (sys.stdout, sys.stderr):
            process.Quietly(stream).flush()
        parent = os.getpid()
        # No signal may find the child with the handlers of the test run.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            # pytest-xdist and others have threads. Nothing they may hold is used by the child.
            try:
                self._pid = fork_safety.fork()
            except OSError:
                self._release()
                raise
            if self._pid == 0:
                self._pid = os.getpid()
                self._serve(parent, listeners, queues, life, present, control)
            try:
                # A group of its own, so that what the project starts and forgets can be ended with it; and Ctrl-C is
                # the test run's affair. Here as in the child: whoever is first.
                os.setpgid(self._pid, self._pid)
            except OSError:
                pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for listener in listeners:
                listener.close()
            for fd in passed:
                os.close(fd)
        _running.append(self)
        self._used = False
        self._await("ready")

    def _await(self, word: str) -> None:
        """Until the Arbiter says so. Raises ServerError."""
        limit = self._config.boot_timeout + _PATIENCE
        deadline = time.monotonic() + limit
        heard = b""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while word.encode() not in heard.split(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise self._failed(f"was not {word} after {limit:g} s")
            words = os.read(self._control, 4096)
            if not words:
                raise self._failed(f"ended before it was {word}")
            heard += words

    def _failed(self, why: str) -> ServerError:
        said = self.said()
        self.stop()
        return ServerError(f"The server {why}." + (f" It said:\n{said}" if said else ""))

    # -- in the child --------------------------------------------------------------------------------------------------

    def _serve(
        self, parent: int, listeners: list[Listener], queues: list[list[int]], life: int, present: int, control: int
    ) -> NoReturn:
        """Be the Arbiter. Never returns: the frames of a test run lie below."""
        status = 1
        try:
            os.setpgid(0, 0)
            assert self._output is not None and self._board is not None
            for fd in (self._life, self._control, self._presence):
                os.close(fd)
            kept = [life, present, control, self._board.fd, *(fd for queue in queues for fd in queue)]
            kept += [listener.socket.fileno() for listener in listeners]
            leave_the_tests(self._output.fileno(), kept)
            process.set_title("django-prefork: arbiter of a test")
            application = self._application()
            log.setup(self._config, verbosity=0, color=False)  # what goes as it should would bury what does not
            fork_safety.clean()
            fork_safety.freeze()
            arbiter = Arbiter(
                application,
                self._config,
                listeners=listeners,
                board=self._board,
                generation=1,
                life=life,
                control=control,
                # Whoever is told that a request is done finds its line.
                access_log=log.AccessLog.from_config(self._config, gathers=False),
                queues=queues,
            )
            status = arbiter.run()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            if os.getppid() != parent:
                # The test run was killed: nobody else will look after what the project started and forgot.
                os.killpg(0, signal.SIGKILL)
            os._exit(status)

    def _application(self) -> Callable[..., Any]:
        """As in production, with static and media files served as Django's live server does."""
        application: Callable[..., Any] = get_internal_wsgi_application()
        # Without MEDIA_URL, Django's handler would take every request, and pass the project's application by.
        if settings.MEDIA_ROOT and settings.MEDIA_URL.strip("/"):
            application = _MediaFilesHandler(application)
        static_handler = self._static_handler
        if static_handler is None and "django.contrib.staticfiles" in settings.INSTALLED_APPS:
            from django.contrib.staticfiles.handlers import StaticFilesHandler

            static_handler = StaticFilesHandler
        elif static_handler is None and settings.STATIC_URL:
            static_handler = _StaticFilesHandler
        return static_handler(application) if static_handler is not None else application

    # -- while it runs -------------------------------------------------------------------------------------------------

    def said(self) -> str:
        """What the server and the project wrote since the last `forget()`: log, requests, errors, prints."""
        if self._output is None:
            return ""
        size = os.fstat(self._output.fileno()).st_size
        start = max(self._read_to, size - _SHOWN)
        text = os.pread(self._output.fileno(), size - start, start).decode("utf-8", "replace").rstrip()
        return f"[...]\n{text}" if start > self._read_to else text

    def report(self) -> str:
        """What it said, for a test that has failed: a request that is just being answered has its line, too."""
        self._settle()
        return self.said()

    def _settle(self) -> None:
        """Until no request runs, or for `_SETTLING`: one may run for ever, and its worker is then replaced."""
        deadline = time.monotonic() + _SETTLING
        while self._board is not None and time.monotonic() < deadline:
            if not any(reading.serves and not reading.leaving for reading in self._board.occupied()):
                break
            time.sleep(0.005)

    def forget(self) -> None:
        """What was said up to now belongs to a test that is over."""
        self._used = True
        if self._output is not None:
            self._read_to = os.fstat(self._output.fileno()).st_size

    def begin(self) -> None:
        """A test begins: what an earlier one left in the workers' memory is gone. Raises ServerError.

        Rows have other ids in each test, and what was cached of them would be wrong: content types, sites, and all that
        a project keeps. So workers are forked anew, from an Arbiter that has never seen a row.
        """
        self.check()
        if self._used:
            self._settle()  # or the line of the last request would be this test's
            self.forget()
            self._used = False
            os.write(self._control, b"renew\n")
            self._await("renewed")

    def check(self) -> None:
        """Raises ServerError if the server has ended though nobody stopped it."""
        if not hasattr(os, "waitid"):
            return  # macOS, up to Python 3.12: whoever asks the server notices
        if self._pid and os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            raise ServerError("The server has ended, and this test has nobody to ask.")

    def restart(self) -> None:
        """Stop, and start at the same port with the settings and patches of now."""
        self.stop()
        self.start()

    # -- stop ----------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Return when all of its processes are gone. Does nothing if it does not run."""
        if not self._pid:
            return
        assert self._board is not None and self._output is not None
        self._board.stop()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        limit = self._config.graceful_timeout + _PATIENCE
        orderly = _ended(self._presence, limit)
        # What is left: its own processes if they did not leave, and what the project started there and forgot.
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # there is nobody (macOS says so in the second way)
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # the test run ignores SIGCHLD
        _ended(self._presence, limit)
        self._pid = 0
        _running.remove(self)
        late = self.said()
        if not orderly:
            late += f"\n[ERROR] Not all processes of the server had left after {limit:g} s: they were killed."
        self._release()
        if "[ERROR] " in late or "[CRITICAL] " in late:
            # No test is left to have it in its report.
            print(f"django-prefork, after the last test:\n{late}", file=sys.stderr)

    def _release(self) -> None:
        """What this process has of it."""
        assert self._board is not None and self._output is not None
        for fd in (self._life, self._control, self._presence, self._board.fd):
            if fd >= 0:
                os.close(fd)
        self._life = self._control = self._presence = -1
        self._board = None
        self._output.close()
        self._output = None


def _ended(pipe: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _check_databases(aliases: Iterable[str] | None) -> None:
    for alias in aliases if aliases is not None else list(connections):
        connection = connections[alias]
        if connection.vendor == "sqlite" and connection.is_in_memory_db():  # type: ignore[attr-defined]
            raise ImproperlyConfigured(
                f"The test database {alias!r} is SQLite in memory, which no other process can see: give it a file, with"
                f' "TEST": {{"NAME": BASE_DIR / "test.sqlite3"}} in DATABASES[{alias!r}].'
            )
        if connection.in_atomic_block:
            raise ImproperlyConfigured(
                f"A transaction is open on {alias!r}, and the server would never see what is in it: use"
                " TransactionTestCase or PreforkLiveServerTestCase, or django_db(transaction=True)."
            )


@contextmanager
def explain(server: PreforkServer) -> Iterator[None]:
    """An exception that leaves this block takes along what the server said."""
    try:
        yield
    except unittest.SkipTest:
        raise
    except BaseException as error:
        if said := server.report():
            error.add_note(f"\n{HEADING}:\n{said}")
        raise


HEADING = "What the server said during this test"

#: Those of this process.
_running: list[PreforkServer] = []


def _in_a_child() -> None:
    """Whatever else this process forks must not keep a server alive, or unnoticed."""
    for server in _running:
        for fd in (server._life, server._control, server._presence):
            if fd >= 0:
                os.close(fd)
        server._pid = 0
    _running.clear()


os.register_at_fork(after_in_child=_in_a_child)
