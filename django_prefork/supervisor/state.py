"""How a process executes the Supervisor in its own place, and what survives that."""

from __future__ import annotations

import os
from typing import Any

from django_prefork import inheritance


def command(executable: str, fd: int, *flags: str) -> list[str]:
    """How the Supervisor is started, `fd` being its inheritance."""
    folder = os.path.dirname(os.path.abspath(__file__))
    return [executable, "-I", "-S", folder, *flags, str(fd)]


def become(executable: str, words: dict[str, Any]) -> None:
    """Execute the Supervisor in this process's place. Returns only by raising OSError."""
    fd = inheritance.leave(words, words["descriptors"])
    try:
        os.execv(executable, command(executable, fd))
    except OSError:
        os.close(fd)
        for descriptor in words["descriptors"]:
            os.set_inheritable(descriptor, False)
        raise
