"""What each of the server's processes does at its beginning and at its end."""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import select
import sys
import time
from typing import Any, TextIO

logger = logging.getLogger("django_prefork")

# What atexit handlers may take (seconds): exporters flush there, and some wait for a network that is gone.
ATEXIT_SECONDS = 5.0

# What a database server may take to accept that a query is cancelled (seconds): it may be what does not answer.
CANCEL_SECONDS = 1.0
# How much sooner than its Arbiter a worker is killed when memory runs out, in thousandths of all memory: enough to make
# up for what the Arbiter has mapped beside, and not so much that a worker would die for another program's appetite.
OOM_SCORE = 50


def set_title(title: str) -> None:
    """In `ps` and `top`, where setproctitle happens to be installed (the extra `title`)."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(title)


def go_first() -> None:
    """When memory runs out, a worker is to die and not its Arbiter, which may be as large: they share what it loaded.

    Whoever is above in oom_score_adj, by thousandths of the memory there is, is killed first; raising one's own is
    always allowed. Not so after --user: the kernel then keeps the process's files from its new user.
    """
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = int(file.read())
            file.seek(0)
            file.write(str(min(1000, score + OOM_SCORE)))
    except (OSError, ValueError):
        pass  # no Linux


def began() -> float:
    """When this process did, in seconds since 1970; elsewhere than on Linux it may say a little too late."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        # A tick is counted when it is over; nothing was loaded in the first two.
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + (ticks + 2) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        # Loading is work: what it took of the processor, it took of time at least.
        return time.time() - time.process_time()


def open_standard_streams() -> None:
    """Where descriptors 0 to 2 are closed, the next socket would become one of them, and be printed to."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)
    if sys.stdin is None:
        sys.stdin = open(0)  # noqa: SIM115 - open as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", buffering=1)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115


class Quietly:
    """A stream for people that nobody may be reading: what cannot be written, now or ever, is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            poll = select.poll()
            poll.register(self._stream.fileno(), select.POLLOUT)
            if poll.poll(100):
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass

    def isatty(self) -> bool:
        return self._stream.isatty()


def close_databases(*, pools: bool = False) -> None:
    """Close this thread's database connections, and with `pools` all pools of this process.

    What fails is logged: it must not keep a process from going on.
    """
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except Exception:
            logger.exception("closing the database connection %r failed", connection.alias)
    if pools:
        _close_pools()


def close_old_databases() -> None:
    """Close this thread's database connections that are older than CONN_MAX_AGE: Django looks when a request comes."""
    from django.db import close_old_connections

    try:
        close_old_connections()
    except Exception:
        logger.exception("closing old database connections failed")


def pools() -> list[dict[Any, Any]]:
    """The pools of each database backend, by whatever key: they live in a class attribute (Django ticket #31637)."""
    from django.conf import settings
    from django.db import connections

    if not settings.configured:  # they do not import: nobody has a connection
        return []
    found: dict[int, dict[Any, Any]] = {}
    for database in connections.settings.values():
        # Only of backends that are loaded. Several may share one, by inheritance.
        backend = sys.modules.get(f"{database['ENGINE']}.base")
        of_backend = getattr(getattr(backend, "DatabaseWrapper", None), "_connection_pools", None)
        if isinstance(of_backend, dict):
            found[id(of_backend)] = of_backend
    return list(found.values())


def _close_pools() -> None:
    from django.db import connections

    if not any(pools()):
        return
    for alias in connections:
        connection: Any = connections[alias]
        # Without its pool, close_pool() would make one; Oracle's has the user in its key.
        keys = (alias, (alias, connection.settings_dict.get("USER")))
        if any(key in getattr(connection, "_connection_pools", ()) for key in keys):
            try:
                connection.close_pool()
            except Exception:
                logger.exception("closing the pool of the database %r failed", alias)


def cancel_queries() -> None:
    """Ask the database servers to give up what this thread has running there, where the driver can.

    A driver that is interrupted in the middle of a query tells its server nothing, which goes on to the end of it.
    """
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        driver = connection.connection
        # 1 is libpq's PQTRANS_ACTIVE: there is something to cancel. Other drivers do not say.
        if driver is None or getattr(getattr(driver, "info", None), "transaction_status", 1) != 1:
            continue
        try:
            if hasattr(driver, "cancel_safe"):
                driver.cancel_safe(timeout=CANCEL_SECONDS)
            elif hasattr(driver, "cancel"):
                driver.cancel()
        except Exception:
            logger.debug("cancelling a query on %r failed", connection.alias, exc_info=True)


def leave(status: int) -> None:
    """Run what was registered for the end, but not for ever, and end. Never returns.

    Not by `sys.exit()`: frames of whoever called the command, and of the process this one was forked from, lie below.
    """
    try:
        faulthandler.dump_traceback_later(ATEXIT_SECONDS, exit=True)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except Exception:
        pass  # a stream that is closed, or none: this process ends in any case
    finally:
        os._exit(status)
