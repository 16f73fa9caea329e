"""Files of prometheus_client's multiprocess mode that are a slot's, and not a process's.

In that mode each process counts in files with its pid in their names, and nobody cleans up behind it: in a month of
deploys there are thousands, and each is read at each scrape. Here the next worker of a slot goes on in the files of the
one before it. It happens where PROMETHEUS_MULTIPROC_DIR is set and prometheus_client is installed.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from typing import Any

logger = logging.getLogger("django_prefork")


def folder() -> str | None:
    """Where the files are; None where the mode is off."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR") or None


def be_arbiter(generation: int, living: set[int], command: int) -> None:
    """By an Arbiter; `living` are the numbers of the generations whose Arbiter lives.

    `command` is the pid of the process that was the command at the first start, and is the Supervisor since.
    """
    where = folder()
    if where is None or not _be(f"arbiter{generation}"):
        return
    # What was counted while the code was loaded is nobody's any more; and what Arbiters left that were killed.
    for path in glob.glob(os.path.join(glob.escape(where), "*.db")):
        name = re.search(r"_(?:arbiter)?(\d+)\.db$", path)
        own = name is not None and path.endswith((f"_{os.getpid()}.db", f"_{command}.db"))
        stale = name is not None and "_arbiter" in path and int(name[1]) not in living | {generation}
        if own or stale:
            _remove(path)


def be_worker(slot: int) -> None:
    """By a worker, before it serves."""
    if folder() is not None:
        worker_ended(slot)  # the one before it, if its Arbiter could not say so
        _be(f"slot{slot}")


def worker_ended(slot: int) -> None:
    """By whoever reaped it: gauges that tell of living processes only (mode `live...`) end with it."""
    where = folder()
    if where is not None:
        for path in glob.glob(os.path.join(glob.escape(where), f"gauge_live*_slot{slot}.db")):
            _remove(path)


def child_ended(pid: int) -> None:
    """By an Arbiter, of a child that is no worker: what that has counted is nobody's."""
    where = folder()
    if where is not None:
        for path in glob.glob(os.path.join(glob.escape(where), f"*_{pid}.db")):
            _remove(path)


def _be(name: str) -> bool:
    """Count under this name from now on, in metrics that were made before, too."""
    try:
        from prometheus_client import values
    except ImportError:
        return False
    # Metrics hold on to the class, which asks a function in its closure who it is. Another class, which is what can be
    # had officially, would have to be there before the first metric is made, wherever that is.
    check: Any = getattr(values.ValueClass, "_MmapedValue__check_for_pid_change", None)
    code = getattr(check, "__code__", None)
    if code is None or "process_identifier" not in code.co_freevars:
        logger.warning("this version of prometheus_client is not known: its files are named by pids, and stay")
        return False
    check.__closure__[code.co_freevars.index("process_identifier")].cell_contents = lambda: name
    return True


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it is gone, or another user's
