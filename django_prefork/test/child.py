"""What a process that was forked from a test run has to leave behind before it can be a server."""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import signal
import socket
import stat
import sys
import weakref
from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections


def leave_the_tests(output: int, keep: Collection[int]) -> None:
    """In the child, first thing: standard output and error become `output`; of the descriptors, `keep` is needed.

    The caller never returns into the test run, whose frames lie below.
    """
    signal.set_wakeup_fd(-1)
    _forget_what_runs_at_exit()
    _let_go_of_descriptors({output, *keep})
    _speak_to(output)
    # Wrappers of the test's thread, some of them patched to refuse queries. All that could be shared was closed before
    # the fork; new ones are made from the same settings, with the test databases' names.
    for alias in list(connections):
        try:
            del connections[alias]
        except AttributeError:
            pass  # never used
    _forget_rows()


def _forget_rows() -> None:
    """Of a database that will be emptied: what Django keeps of rows in memory, and what is cached there."""
    if apps.is_installed("django.contrib.contenttypes"):
        from django.contrib.contenttypes.models import ContentType

        ContentType.objects.clear_cache()
    if apps.is_installed("django.contrib.sites"):
        from django.contrib.sites.models import Site

        Site.objects.clear_cache()
    for cache in caches.all(initialized_only=True):
        if isinstance(cache, LocMemCache):
            cache.clear()


def _forget_what_runs_at_exit() -> None:
    """It was registered by the test run, and would remove the test run's temporary folders and end its helpers."""
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def _let_go_of_descriptors(keep: Collection[int]) -> None:
    """Pipes and connections of the test run: as long as a copy is open, nobody at their other end sees them closed.

    They are not closed but become /dev/null, since objects here know them by number. Files stay: logs, say; and so do
    datagram sockets, which have no end to be seen (syslog).
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for fd in [int(name) for name in os.listdir("/dev/fd")]:
        if fd > 2 and fd not in keep and fd != null and _has_another_end(fd):
            os.dup2(null, fd, inheritable=False)
    os.close(null)


def _has_another_end(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            sock = socket.socket(fileno=fd)
            kind = sock.type
            sock.detach()
            return kind != socket.SOCK_DGRAM
        return stat.S_ISFIFO(mode)
    except OSError:
        return False  # the folder itself, which has been read


def _speak_to(output: int) -> None:
    """All that is printed or logged here goes to `output`, and nothing to the test run's own reports."""
    for number in (1, 2):
        os.dup2(output, number)
    sys.stdin = sys.__stdin__ = _stream(0, "r")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, "w")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "w")  # type: ignore[misc]
    sys.excepthook = sys.__excepthook__
    sys.unraisablehook = sys.__unraisablehook__
    faulthandler.enable()
    known = logging.root.manager.loggerDict.values()
    for logger in [logging.root, *(each for each in known if isinstance(each, logging.Logger))]:
        for handler in list(logger.handlers):
            if type(handler).__module__.startswith("_pytest."):
                logger.removeHandler(handler)  # nobody reads its memory in this process
            elif isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setStream(sys.stderr)


def _stream(fd: int, mode: str) -> Any:
    buffering = -1 if mode == "r" else 1
    return open(fd, mode, buffering, encoding="utf-8", errors="backslashreplace", closefd=False)
