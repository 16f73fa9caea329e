"""Who is over its time: each worker's boot, request, departure and memory; and the end of those that are."""

from __future__ import annotations

import logging
import os
import signal
import time

from django_prefork import signals
from django_prefork.arbiter.children import Child, Children, Stage
from django_prefork.config import Config
from django_prefork.memory import private_bytes
from django_prefork.report import quoted, serving
from django_prefork.scoreboard import Reading, Scoreboard
from django_prefork.worker.worker import DUMP_SIGNAL, LATE_SIGNAL

logger = logging.getLogger("django_prefork")

# Code that catches the exception and goes on gets it again after this time (seconds).
AGAIN = 1.0
# How long a worker's stacks are waited for before it is killed (seconds): C code dumps them in milliseconds.
DUMP_SECONDS = 1.0
# The longest the Arbiter sleeps (seconds): what it must not miss for longer is a request that becomes overdue.
NAP = 1.0


class Watch:
    """Looks at each worker's row and deadlines, and ends what is over them, naming it."""

    def __init__(self, config: Config, board: Scoreboard, children: Children) -> None:
        self._config = config
        self._board = board
        self._children = children
        # A request is seen at least once before it is late, and from then on awaited to the point.
        self._nap = min(NAP, max(0.05, config.timeout / 2)) if config.timeout else NAP

    def murder(self) -> float:
        """Kill what is over its time; return when to look again (monotonic)."""
        now = time.monotonic()
        return min([now + self._nap, *(self.look_at(child, now) for child in self._children)])

    def credit(self, lost: float) -> None:
        """This process stood still, and so, most likely, did all: nobody is late by that."""
        logger.warning("the arbiter stood still for %.1f s: credited to every running request", lost)
        for child in self._children:
            child.give_credit(self._board.read(child.slot).since, lost)
            if child.stage is Stage.BOOTING:
                child.born += lost
            if child.leave_deadline is not None:
                child.leave_deadline += lost

    def look_at(self, child: Child, now: float) -> float:
        """Judge one worker; return when it must be looked at again."""
        if child.stage is Stage.DOOMED:
            if child.kill_at is None:
                return now + NAP
            # The dump is complete when it has stopped growing between two looks.
            size, child.dump_size = child.dump_size, os.fstat(child.dump).st_size
            if now >= child.kill_at or (size and size == child.dump_size):
                self._finish_off(child)
                return now + NAP
            return now + 0.02
        if child.stage is Stage.BOOTING:
            limit = child.born + self._config.boot_timeout
            if now >= limit:
                self._doom(child, "timeout", f"not ready after {self._config.boot_timeout:g} s")
                return now
            return limit
        reading = self._board.read(child.slot)
        if self._config.max_rss_hard and now >= child.weigh_at:
            child.weigh_at = now + NAP
            size = private_bytes(child.pid) or 0
            if size > self._config.max_rss_hard:
                what = f" serving {quoted(reading.request)}" if reading.serves else ""
                self._doom(child, "memory", f"max_rss_hard, {size / 1048576:.0f} MiB of its own{what}")
                return now
        if reading.serves and reading.limit:
            return self._look_at_request(child, reading, now)
        if child.leave_deadline is not None and now >= child.leave_deadline:
            self._doom(child, "timeout", "has not left")
            return now
        return now + NAP

    def _look_at_request(self, child: Child, reading: Reading, now: float) -> float:
        """First an exception in the view, again and again; after timeout_grace the end."""
        soft = reading.since + child.credited(reading.since) + reading.limit
        hard = soft + self._config.timeout_grace
        if now < soft:
            return soft
        # Read again: between state and clock the request may have ended, and the next one is not to blame.
        if self._board.read(child.slot) != reading:
            return now + 0.01
        if now >= hard:
            child.accused = reading
            self._doom(child, "timeout", serving(reading, now, f"timeout is {reading.limit:g} s"))
            return now
        if child.told_late != reading.since:
            child.told_late = reading.since
            child.tell_again = now
            late = serving(reading, now, f"timeout is {reading.limit:g} s")
            logger.warning("%s %s: RequestTimeout", child.name, late)
        if now >= child.tell_again:
            child.tell_again = now + AGAIN
            child.kill(LATE_SIGNAL)
        return min(hard, child.tell_again)

    def _doom(self, child: Child, reason: str, why: str) -> None:
        """Ask for all stacks, then kill. A stopped process is continued first, or it could not answer."""
        child.stage = Stage.DOOMED
        child.reason, child.why = reason, why
        child.kill_at = time.monotonic() + DUMP_SECONDS
        logger.error("%s %s: its stacks, then SIGKILL", child.name, why)
        child.kill(signal.SIGCONT)
        child.kill(DUMP_SIGNAL)

    def _finish_off(self, child: Child) -> None:
        child.kill_at = None
        stacks = os.pread(child.dump, 1 << 20, 0).decode("utf-8", "replace").rstrip()
        child.kill(signal.SIGKILL)
        logger.error("%s killed: %s\n%s", child.name, child.why, stacks or "(it gave no stacks)")
        if child.accused is not None:
            signals.emit(
                signals.request_timed_out,
                slot=child.slot,
                generation=child.accused.generation,
                pid=child.pid,
                request=child.accused.request,
                view=child.accused.view,
                client=child.accused.client,
                request_id=child.accused.request_id,
                seconds=time.monotonic() - child.accused.since,
                stacks=stacks,
            )

    def kill_all(self, why: str, level: int = logging.ERROR) -> None:
        for child in self._children:
            reading = self._board.read(child.slot)
            if reading.serves:
                what = f" serving {quoted(reading.request)} for {time.monotonic() - reading.since:.1f} s"
            else:
                what = ""
            logger.log(level, "%s%s killed: %s", child.name, what, why)
            child.stage = Stage.DOOMED
            child.reason, child.why = "timeout", f"{why}{what}"
            child.kill_at = None
            child.kill(signal.SIGKILL)
