"""How much memory is a process's own. Standard library only.

Resident memory counts the pages that forked workers share with their Arbiter in each of them; what a recycle gives
back is what a process has to itself.
"""

from __future__ import annotations

import re

_PRIVATE = re.compile(rb"^Private_(?:Clean|Dirty):\s+(\d+) kB", re.MULTILINE)


def private_bytes(pid: int | str = "self") -> int | None:
    """Bytes that only `pid` has. None where the kernel does not tell (no Linux), or there is no such process.

    Costs up to a millisecond: the kernel walks the process's pages.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            text = file.read()
    except OSError:
        return None
    return sum(int(kib) for kib in _PRIVATE.findall(text)) * 1024
