"""What a worker that is busy gives to its siblings: from the guard's thread, and from a turn that takes long."""

from __future__ import annotations

import resource
import time
from collections import deque
from typing import Protocol

from django_prefork.row import Row
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker.connection import Connection
from django_prefork.worker.doors import Doors
from django_prefork.worker.handoff import Handed, Queues
from django_prefork.worker.loop import Loop
from django_prefork.worker.waiting import waited

# Where the CPU is what is short, siblings are given a connection this often (seconds): a hand-off costs 20 us and more.
DRIFT = 0.01
# How many connections of one turn a sibling that is idle is given.
EACH = 4


class Busy(Protocol):
    """The worker, as far as this needs it."""

    slot: int
    row: Row
    loop: Loop
    board: Scoreboard
    connections: set[Connection]
    later: deque[Connection]
    leaving: str


class Sharing:
    """Of one worker, whose doors are `doors`, by way of `queues`."""

    def __init__(self, worker: Busy, doors: Doors, queues: Queues) -> None:
        self._worker = worker
        self._doors = doors
        self._queues = queues
        self._preempted = _preemptions()
        self._drift_at = 0.0

    def help_out(self) -> None:
        """By the guard: a request runs for long, and the loop stands still. Nobody waits who need not."""
        worker, queues = self._worker, self._queues
        worker.loop.cork.push()  # what a sibling has cannot be let go of here
        now = time.monotonic()
        kept: list[Connection] = []
        missed = False
        for who, _ in worker.loop.peek():
            if isinstance(who, Connection):
                who.go_on_sending()
                kept.append(who)
            else:
                missed = True
        new: list[Handed] = []
        if missed:
            if worker.leaving or worker.board.idle_siblings(worker.slot, now):
                # The kernel woke this worker for a connection that it cannot come for.
                queues.ready.kick()
            elif not self._doors.left_over:
                new = self._doors.come_in(now)
        for waiting in (*worker.loop.line, *worker.later):
            if isinstance(waiting, Connection):
                waiting.give(queues)
        for one in _in_order(kept, new, now) if new else kept:
            if isinstance(one, Connection):
                one.give(queues, ready=True)
            elif queues.ready.give(*one):
                worker.row.gave(True)
                one.sock.close()
            else:
                self._doors.left_over.append(one)

    def share(self, fds: list[int]) -> None:
        """By the loop, whose turn takes long: siblings that are idle may have what is left of it, in this order."""
        worker, loop = self._worker, self._worker.loop
        if worker.leaving:
            return
        idle = worker.board.idle_siblings(worker.slot, loop.now)
        most = EACH * len(idle)
        before, self._preempted = self._preempted, _preemptions()
        if self._preempted != before:
            # It took long since others had the CPU: then it is not there for siblings either, idle as they may look.
            # One now and then, while there are clearly fewer elsewhere, so that connections spread all the same.
            own = len(worker.connections)
            if loop.now < self._drift_at or min(idle, default=own) + own // 4 + 1 >= own:
                return
            self._drift_at = loop.now + DRIFT
            most = 1
        loop.cork.pull()  # as in `help_out`
        for fd in fds:
            if most <= 0:
                break
            who = loop.watched(fd)
            if isinstance(who, Connection) and who.give(self._queues, ready=True):
                most -= 1


def _preemptions() -> int:
    """How often the kernel took the CPU away from this thread; always 0 where it does not tell."""
    who = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if who is None else resource.getrusage(who).ru_nivcsw


def _in_order(kept: list[Connection], new: list[Handed], now: float) -> list[Connection | Handed]:
    """By how long they have waited; whom the kernel's clock, which goes in steps, cannot tell apart, in turns."""
    line: list[tuple[float, int, Connection | Handed]] = []
    line += [(now - (waited(one.sock) or 0.0), place, one) for place, one in enumerate(kept)]
    line += [(one.since, place, one) for place, one in enumerate(new)]
    return [one for _, _, one in sorted(line, key=lambda entry: entry[:2])]
