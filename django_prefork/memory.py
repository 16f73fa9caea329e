"""How much memory is a process's own, and whether the kernel kills for want of it. Standard library only.

Resident memory counts the pages that forked workers share with their Arbiter in each of them; what a recycle gives
back is what a process has to itself.
"""

from __future__ import annotations

import re
import time

_PRIVATE = re.compile(rb"^Private_(?:Clean|Dirty):\s+(\d+) kB", re.MULTILINE)
_SHARED = re.compile(rb"^Shared_(?:Clean|Dirty):\s+(\d+) kB", re.MULTILINE)


def memory(pid: int | str = "self") -> tuple[int, int] | None:
    """Bytes that only `pid` has, and bytes that it shares. None where the kernel does not tell (no Linux), or there is
    no such process.

    Costs a millisecond or more: the kernel walks the process's pages.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            text = file.read()
    except OSError:
        return None
    private, shared = (sum(map(int, what.findall(text))) * 1024 for what in (_PRIVATE, _SHARED))
    return private, shared


def private_bytes(pid: int | str = "self") -> int | None:
    """The first of what `memory` tells."""
    found = memory(pid)
    return found and found[0]


class OutOfMemory:
    """Whether the kernel has killed somebody for lack of memory: in our control group, else on this machine."""

    def __init__(self) -> None:
        self._counts = _kills()
        self._looked = time.monotonic()
        self._found: tuple[float, float] | None = None

    def look(self) -> float | None:
        """If it has since the last look, or the one found by a look a second ago: how long ago at most, in seconds."""
        before, since = self._counts, self._looked
        self._counts, self._looked = _kills(), time.monotonic()
        # The control group's own count says more; it is another one when we were moved to another group.
        name = next((name for name in self._counts if name in before), None)
        if name is not None and self._counts[name] > before[name]:
            self._found = self._looked, since
        if self._found is not None and self._looked - self._found[0] <= 1.0:  # several may have died of the same
            return self._looked - self._found[1]
        return None


def _kills() -> dict[str, int]:
    """Counts of such kills by the file that has them; the one that says most comes first. Empty where nobody tells."""
    names = []
    try:
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        groups = []
    for _, controllers, path in groups:
        if not controllers:
            names.append(f"/sys/fs/cgroup{path.rstrip('/')}/memory.events")
        elif "memory" in controllers.split(","):
            # In a container without a namespace for it the path is the host's, and the root is ours.
            names += [f"/sys/fs/cgroup/memory{path.rstrip('/')}/memory.oom_control"]
            names += ["/sys/fs/cgroup/memory/memory.oom_control"] if path != "/" else []
    found: dict[str, int] = {}
    for name in (*names, "/proc/vmstat"):
        if found and name != "/proc/vmstat":
            continue
        try:
            with open(name) as file:
                match = re.search(r"^oom_kill (\d+)$", file.read(), re.MULTILINE)
        except OSError:
            continue
        if match:
            found[name] = int(match[1])
    return found
