"""Tells when a thread beside the application lets answers go that wait for others."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from django_prefork.worker.cork import SHORTEST, Cork

_push = Cork.push


def _told(cork: Cork) -> None:
    held = len(cork._held)
    _push(cork)
    who = threading.current_thread()
    if held and who is not threading.main_thread():
        os.write(2, f"{who.name} lets go of {held}\n".encode())


Cork.push = _told  # type: ignore[method-assign]


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """`/slow` takes half a second, all else as long as is worth waiting for."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    until = time.perf_counter() + 2 * SHORTEST
    while time.perf_counter() < until:
        pass
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]
