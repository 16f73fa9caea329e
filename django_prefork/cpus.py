"""How many CPUs this process may really use: in a container far fewer than the machine has."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpus(root: str | Path = "/") -> int:
    """The CPUs that both the scheduler's mask and every cgroup quota above this process allow: 1 or more.

    A quota of two and a half CPUs counts as three. `root` is where /proc and /sys are found.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(Path(root)))]))


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas of this process's cgroup and of those above it, whose quotas hold for it as well."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:  # cgroup v2
            mounts, files = ["sys/fs/cgroup"], ["cpu.max"]
        elif "cpu" in controllers.split(","):
            mounts, files = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"], _V1_FILES
        else:
            continue
        # Inside a container the name may be the host's and not be found here (v1), or point out of it with "..": the
        # folders above, up to the mount itself, then hold what applies.
        inner = PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", "..")))
        for mount in mounts:
            for folder in (inner, *inner.parents):
                yield from _quota([_read(root / mount / folder / file) for file in files])


_V1_FILES = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]


def _quota(texts: list[str]) -> Iterator[float]:
    """The quota that `cpu.max`, or the two files of v1, tell in microseconds; none if there is no limit ("max", -1)."""
    words = " ".join(texts).split()
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
