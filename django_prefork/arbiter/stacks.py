"""The stacks of a worker's threads, while it runs: asked for by a signal, written by C code, put on the scoreboard."""

from __future__ import annotations

import os

from django_prefork.arbiter.children import Child, Children, Stage
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker.worker import DUMP_SIGNAL

# How often it looks whether all is there, and how long for (seconds): C code takes milliseconds.
LOOK = 0.005
PATIENCE = 1.0

_MOST = 1 << 20


class Stacks:
    """Of the workers of one Arbiter."""

    def __init__(self, board: Scoreboard, children: Children) -> None:
        self._board = board
        self._children = children
        # Who was asked: until when it has time, and how much it had written when we looked last.
        self._asked: dict[Child, tuple[float, int]] = {}

    def ask(self, slot: int, now: float) -> bool:
        """Whether there is such a worker here. Its stacks are on the board soon after."""
        child = next((child for child in self._children if child.slot == slot), None)
        if child is None:
            return False
        # One that is about to be killed has been asked already; whose turn it is to read them then, is another's.
        if child.stage is not Stage.BOOTING and child.stage is not Stage.DOOMED and child not in self._asked:
            self._asked[child] = (now + PATIENCE, -1)
            _forget(child)
            child.kill(DUMP_SIGNAL)
        return True

    def look(self, now: float) -> float:
        """Take what is complete; return when to look again (monotonic)."""
        living = set(self._children)
        for child, (until, before) in list(self._asked.items()):
            if child not in living or child.stage is Stage.DOOMED:
                del self._asked[child]
                continue
            size = os.fstat(child.dump).st_size
            if (size and size == before) or now >= until:
                del self._asked[child]
                text = os.pread(child.dump, _MOST, 0)
                _forget(child)
                if text:
                    self._board.put_stacks(child.slot, text)
            else:
                self._asked[child] = (until, size)
        return now + (LOOK if self._asked else PATIENCE)


def _forget(child: Child) -> None:
    """What it has written. The file's position is the worker's too: they share one open file."""
    os.ftruncate(child.dump, 0)
    os.lseek(child.dump, 0, os.SEEK_SET)
