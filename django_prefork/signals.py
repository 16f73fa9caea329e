"""Hooks a project can attach to: Django signals, sent with ``send_robust`` so that a receiver's error does no harm.

Every signal is sent with ``sender=None``. ``server_ready``, ``pre_fork``, ``worker_died``, ``request_timed_out`` and
``server_stopping`` are sent in the Arbiter's process, the others in the worker's.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

#: In the Arbiter, once, when as many workers as configured have become ready. Arguments: ``workers`` (int).
server_ready = Signal()
#: In the Arbiter, before each fork of a worker. Arguments: ``slot`` (int), ``generation`` (int). The place to close
#: what must not be shared; database connections and caches are closed after it.
pre_fork = Signal()
#: In a new worker, first thing after the fork. Arguments: ``slot`` (int), ``generation`` (int).
#: The place to start threads and to open connections that a fork would break.
post_fork = Signal()
#: In a worker that can serve from now on. Arguments: ``slot``, ``generation``.
worker_ready = Signal()
#: In a worker that has answered its last request. Arguments: ``slot``, ``generation``, ``reason`` (str).
worker_exiting = Signal()
#: In the Arbiter, after a worker's end. Arguments: ``slot``, ``generation``, ``pid`` (int), ``status`` (int, the
#: exit status, negative for a signal), ``expected`` (bool: the worker had been told to leave).
worker_died = Signal()
#: In the Arbiter, after a worker was killed because its request was over its time. Arguments: ``slot``, ``generation``,
#: ``pid``, ``request`` (str, its first line), ``view``, ``client``, ``request_id`` (str, empty where not known),
#: ``seconds`` (float, its age), ``stacks`` (str, of all threads, as `faulthandler` writes them). The client's words are
#: as they came.
request_timed_out = Signal()
#: In the Arbiter, when it begins to stop. Arguments: ``reason`` (str).
server_stopping = Signal()

logger = logging.getLogger("django_prefork")


def emit(signal: Signal, **arguments: Any) -> None:
    """Send `signal` to its receivers; what one of them raises is logged and goes no further."""
    for receiver, answer in signal.send_robust(sender=None, **arguments):
        if isinstance(answer, Exception):
            name = getattr(receiver, "__qualname__", repr(receiver))
            logger.error("signal receiver %s failed", name, exc_info=answer)
