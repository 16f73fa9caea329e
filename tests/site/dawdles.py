"""A receiver that keeps the Arbiter, when one worker has gone, until another has."""

from __future__ import annotations

import os
from typing import Any

from django_prefork import signals
from tests.site.applications import hello as application

__all__ = ["application"]


def dawdle(**_: Any) -> None:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # it was the last one
        pass


signals.worker_died.connect(dawdle)
