"""What a family of processes has spent of the CPU, in nanoseconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Stat, family

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """`total` is exact; `user` and `system` share it as the kernel's ticks do, which are samples."""

    total: int
    user: int
    system: int


class Snapshot(NamedTuple):
    processes: dict[int, Stat]
    threads: dict[int, dict[int, int]]  # pid -> tid -> nanoseconds on a CPU


def snapshot(root: int) -> Snapshot:
    processes = family(root)
    return Snapshot(processes, {pid: _threads(pid) for pid in processes})


def growth(before: Snapshot, after: Snapshot) -> Spent:
    """What was spent between two snapshots, by all processes and threads that lived in between.

    Living threads are exact. Of threads that ended, their process's clock ticks tell, of processes that ended, their
    parent's ticks of reaped children: right to 20 ms. Only a process that ended and was reaped by a stranger is lost.
    """
    total = user = system = 0
    for pid, stat in after.processes.items():
        past = before.processes.get(pid, Stat(pid, stat.parent, stat.session, 0, 0, 0, stat.started))
        threads, were = after.threads[pid], before.threads.get(pid, {})
        living = sum(spent - were.get(tid, 0) for tid, spent in threads.items())
        everyone = (stat.user + stat.system - past.user - past.system) * _TICK
        # Ticks are cut off at both snapshots; what is beyond that is the work of threads that ended.
        total += living if everyone - living <= 2 * _TICK else everyone
        user += stat.user - past.user
        system += stat.system - past.system
        total += (stat.children - past.children) * _TICK
    # A child that was reaped came with its whole life's ticks, those from before the first snapshot included.
    reaped_before = sum(
        sum(threads.values())
        for pid, threads in before.threads.items()
        if pid not in after.processes and before.processes[pid].parent in after.processes
    )
    total -= reaped_before
    split = user / (user + system) if user + system else 0.0
    return Spent(total, round(total * split), round(total * (1 - split)))


def _threads(pid: int) -> dict[int, int]:
    spent = {}
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return {}
    for tid in tids:
        try:
            # The first field: nanoseconds on a CPU (Documentation/scheduler/sched-stats.rst of the kernel).
            spent[int(tid)] = int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0])
        except OSError:
            pass  # a thread that ended between listing and reading
    return spent
