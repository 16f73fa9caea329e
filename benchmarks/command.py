"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence

from benchmarks.cores import cores


def prepare(*, pin: bool = True) -> None:
    """Make TERM run all the `finally`s that end servers, as Ctrl-C does; and, if `pin`, stay off the server's core."""
    if not sys.platform.startswith("linux"):
        sys.exit("CPU is read from /proc/<pid>/task/*/schedstat, which only Linux has")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if pin and cores().load:
        os.sched_setaffinity(0, {int(cores().load[-1])})


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """For argparse: a comma separated list of `known` names."""

    def parse(text: str) -> list[str]:
        chosen = [word.strip() for word in text.split(",") if word.strip()]
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return chosen

    return parse


def positive(text: str) -> int:
    """For argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
