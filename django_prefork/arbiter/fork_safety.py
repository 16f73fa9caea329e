"""Before a fork and right behind it: what must not be shared is closed, what should be shared is frozen.

A connection with two owners mixes up their answers, so the Arbiter closes all it has before every fork. What it cannot
close (another thread's) the child drops without a word: not a byte may go out on a socket that is the parent's.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import stat
import sys
import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from django import db
from django.core import cache
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_prefork import process

logger = logging.getLogger("django_prefork")

# A wrapper, and what its driver calls a connection.
Survivor = tuple[BaseDatabaseWrapper, Any]

# Every wrapper that has had a connection in this process, whichever thread it belongs to: Django keeps them by thread.
_wrappers: weakref.WeakSet[BaseDatabaseWrapper] = weakref.WeakSet()
# What a child must keep to its end: a finalizer says goodbye to the server, on the socket of the parent.
_kept: list[Any] = []


def watch() -> None:
    """Know every database connection of this process from here on. To be called before `freeze`."""
    # By type(): isinstance() would wake lazy objects.
    found = [candidate for candidate in gc.get_objects() if issubclass(type(candidate), BaseDatabaseWrapper)]
    _wrappers.update(found)
    connection_created.connect(_made, dispatch_uid="django_prefork.fork_safety")


def _made(connection: BaseDatabaseWrapper, **_: Any) -> None:
    _wrappers.add(connection)


def freeze() -> None:
    """Once, before the first fork: move all that lives out of the collector's sight, or it would unshare the pages."""
    gc.collect()
    gc.freeze()


def clean() -> None:
    """Before every fork: close the databases with their pools, and drop the caches' clients. Never raises."""
    process.close_databases(pools=True)
    dropped = False
    caches: Any = cache.caches
    for alias in caches:
        try:
            client = getattr(caches._connections, alias, None)
            if client is not None:
                client.close()
                # Not all backends close what they have (pylibmc's leaves that to the library). Without its object they
                # do; here, where nobody else has it yet. Each process makes one of its own when it asks for it.
                del caches[alias]
                dropped = True
        except Exception:
            logger.exception("closing the cache %r before a fork failed", alias)
    if dropped and gc.get_freeze_count():
        # Clients are circles of objects. All that is looked at is what has come since the freeze.
        gc.collect()


def fork() -> int:
    """`os.fork()`; in the child, what is left of the parent's connections is gone, and chance is its own.

    Raises `OSError`.
    """
    survivors = _survivors()
    with warnings.catch_warnings():
        # Python 3.12 says that there are threads; the audit has said which, and what to do.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _drop(survivors)
        reseed()
    return pid


def _survivors() -> list[Survivor]:
    """Connections that are still open: other threads', and what did not close. Held here, they outlive the fork."""
    while True:
        try:
            known = list(_wrappers)
            break
        except RuntimeError:
            pass  # another thread made one meanwhile
    return [(wrapper, wrapper.connection) for wrapper in known if wrapper.connection is not None and _shared(wrapper)]


def _shared(wrapper: Any) -> bool:
    """Not a database in this process's memory: that is copied by the fork, and nobody shares it."""
    return not (wrapper.vendor == "sqlite" and wrapper.is_in_memory_db())


def _drop(survivors: Iterable[Survivor]) -> None:
    """In the child: without closing, which would speak on the parent's socket, and without finalizers."""
    connections: Any = db.connections
    for wrapper, connection in survivors:
        _kept.append((wrapper, connection))
        _disconnect(connection)
        wrapper.connection = None
        if getattr(connections._connections, wrapper.alias, None) is wrapper:
            del connections[wrapper.alias]  # its transaction, if it is in one, is the parent's
    for pools in process.pools():
        _kept.append(dict(pools))
        pools.clear()


def _disconnect(connection: Any) -> None:
    """Let the driver's descriptor lead nowhere: whatever it may still say, nobody hears it."""
    try:
        fd = connection.fileno()
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, fd, inheritable=False)
            os.close(nowhere)
    except Exception:
        pass  # not every driver tells its descriptor


def reseed() -> None:
    """Or all children would draw the same numbers. What else a library has registered for a fork, Python calls."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
