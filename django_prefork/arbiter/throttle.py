"""When the next worker may be forked: at once after one that had settled, ever more slowly after starts that fail."""

from __future__ import annotations

import random
import signal
import time

from django_prefork.arbiter import policy
from django_prefork.arbiter.children import Child, Stage


class Throttle:
    """Counts what fails; how long that is paid for, `policy.py` says. Times are monotonic seconds."""

    def __init__(self) -> None:
        #: In a row.
        self.failures = 0
        #: When the next one may start.
        self.next_start = 0.0
        self._spared_at = -policy.SPARED_EVERY

    def forgive(self) -> None:
        """There is new code, or a new test."""
        self.failures = 0
        self.next_start = 0.0

    def could_not_fork(self) -> float:
        """How long the pause is that follows (seconds)."""
        self.failures += 1
        delay = policy.backoff(self.failures, random.random())
        self.next_start = time.monotonic() + delay
        return delay

    def blames(self, child: Child, status: int) -> bool:
        """Whether this end, which nobody had asked for, is a failure, and counts as one."""
        now = time.monotonic()
        if now - child.born >= policy.SETTLED:
            self.failures = 0
            return False
        if (
            status == -signal.SIGKILL
            and child.stage is not Stage.BOOTING
            and now - self._spared_at >= policy.SPARED_EVERY
        ):
            self._spared_at = now
            return False
        self.failures += 1
        return True

    def slow_down(self, status: int) -> None:
        """After a failure by an end with this `status`."""
        now = time.monotonic()
        delay = policy.backoff(self.failures, random.random())
        if status == -signal.SIGKILL:
            self.next_start = now + min(delay, policy.BACKOFF_KILLED)
        else:
            self.next_start = max(self.next_start, now + delay)

    def pause(self) -> None:
        """For as long as it gets: the Supervisor has been told, and lets this generation go."""
        self.next_start = time.monotonic() + policy.BACKOFF_MOST
