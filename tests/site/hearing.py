"""Receivers that say what they hear, and in which process."""

from __future__ import annotations

import os
from typing import Any

from django_prefork import signals


def hear(name: str, *shown: str) -> None:
    def receiver(**arguments: Any) -> None:
        words = ["hook", name, str(os.getpid()), *(f"{key}={arguments[key]}" for key in shown)]
        os.write(2, (" ".join(words) + "\n").encode())

    getattr(signals, name).connect(receiver, weak=False)
