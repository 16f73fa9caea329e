"""Writes to many pages in each request, and does in the rehearsal of its warm-up what the test says."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

from django_prefork.arbiter import rehearsal

ARBITER = os.getpid()
# To read an object is to count a reference, in the object itself: some 16 to 64 bytes each.
MANY = [object() for _ in range(300_000)]
WAY = os.environ.get("TEST_REHEARSAL", "")

rehearsal.PATIENCE = float(os.environ.get("TEST_PATIENCE", rehearsal.PATIENCE))
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    from prometheus_client import Counter

    SEEN = Counter("seen", "Requests.")


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    before = faults()
    for one in MANY:
        del one
    count = faults() - before
    if environ["prefork.slot"] is None:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            SEEN.inc()
        os.write(2, f"asked {os.getpid()}\n".encode())
        if os.getpid() != ARBITER:
            if WAY == "hangs":
                time.sleep(3600)
            elif WAY == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            elif WAY == "fails":
                raise RuntimeError("the database has gone")
    answer = str(count).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
