"""Says which of the server's signals it hears, and in which process."""

from __future__ import annotations

from typing import Any

from django_prefork import signals
from tests.site.applications import hello as application
from tests.site.hearing import hear

__all__ = ["application"]


def broken(**_: Any) -> None:
    raise RuntimeError("as asked")


hear("post_fork", "slot", "generation")
hear("worker_ready", "slot", "generation")
hear("server_ready", "workers")
hear("server_stopping")
hear("worker_exiting")
hear("worker_died", "pid", "status", "expected")
signals.post_fork.connect(broken)
