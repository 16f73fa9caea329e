"""An application whose Arbiter uses the database, too: before the first fork, and again between later ones."""

from __future__ import annotations

import os
import threading
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.db import connection

from django_prefork import signals

__all__ = ["application"]

application = get_wsgi_application()


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def look(**_: Any) -> None:
    """The Arbiter's connection, open again at the next fork."""
    os.write(2, b"arbiter has backend %d\n" % backend())


_asked = threading.Event()


def ask(**_: Any) -> None:
    _asked.set()


def answer_for_ever() -> None:
    """A thread of the Arbiter's process with a connection that nobody else can close."""
    while True:
        os.write(2, b"thread has backend %d\n" % backend())
        _asked.wait()
        _asked.clear()


backend()
if os.environ.get("TEST_THREAD"):
    threading.Thread(target=answer_for_ever, name="answerer", daemon=True).start()
    signals.worker_died.connect(ask)
else:
    signals.server_ready.connect(look)
    signals.worker_died.connect(look)
