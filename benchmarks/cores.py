"""Which core is whose: the server must not share one with what loads it."""

from __future__ import annotations

import os
import shutil
from functools import cache
from typing import NamedTuple

from benchmarks.environment import say


class Cores(NamedTuple):
    """`taskset -c ...` for each side; empty where there is only one core."""

    server: tuple[str, ...]
    load: tuple[str, ...]


@cache
def cores() -> Cores:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2 or not shutil.which("taskset"):
        say("one core, or no taskset (Debian: util-linux): the server and its load share cores, figures are rough")
        return Cores((), ())
    # The first core gets the machine's odd jobs more than others do: the load's side.
    return Cores(("taskset", "-c", str(allowed[-1])), ("taskset", "-c", str(allowed[0])))
