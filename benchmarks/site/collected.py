"""The demo, with an eye on Python's garbage collector: `/collected` tells when it ran, and how long."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from django.core.signals import request_finished

from demo_project.wsgi import application as demo
from django_prefork.signals import post_fork

within = False
began = 0.0
counts = {"within": 0, "between": 0}
worst = {"within": 0.0, "between": 0.0}


def watch(phase: str, info: dict[str, int]) -> None:
    global began
    now = time.perf_counter()
    if phase == "start":
        began = now
        return
    where = "within" if within else "between"
    counts[where] += 1
    worst[where] = max(worst[where], now - began)


def begin(**_: Any) -> None:
    """What the Arbiter collected before the fork is no worker's."""
    for where in counts:
        counts[where], worst[where] = 0, 0.0


def over(**_: Any) -> None:
    global within
    within = False


gc.callbacks.append(watch)
request_finished.connect(over)
post_fork.connect(begin)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    global within
    if environ["PATH_INFO"] == "/collected":
        status = Path("/proc/self/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        answer = {**counts, **{f"worst_{where}": seconds for where, seconds in worst.items()}, "resident": resident}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]
    within = True
    result: Iterable[bytes] = demo(environ, start_response)
    return result
