"""Says which of the server's signals it hears, and in which process."""

from __future__ import annotations

import os
from typing import Any

from django_prefork import signals
from tests.site.applications import hello as application

__all__ = ["application"]


def hear(name: str, *shown: str) -> None:
    def receiver(**arguments: Any) -> None:
        words = ["hook", name, str(os.getpid()), *(f"{key}={arguments[key]}" for key in shown)]
        os.write(2, (" ".join(words) + "\n").encode())

    getattr(signals, name).connect(receiver, weak=False)


def broken(**_: Any) -> None:
    raise RuntimeError("as asked")


hear("post_fork", "slot", "generation")
hear("worker_ready", "slot", "generation")
hear("server_ready", "workers")
hear("server_stopping")
hear("worker_exiting")
hear("worker_died", "pid", "status", "expected")
signals.post_fork.connect(broken)
