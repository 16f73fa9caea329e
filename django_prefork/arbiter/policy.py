"""What the Arbiter decides: pure, without clocks, processes or chance of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from django_prefork.config import Config

# Between failing starts: long enough that a crash loop costs nothing, short enough that a mended cause shows (seconds).
BACKOFF_FIRST = 0.1
BACKOFF_MOST = 30.0
# A worker that was killed from outside is not to blame; it is replaced in under a second however often that happens.
BACKOFF_KILLED = 0.4
# Seconds from one worker to the next that is killed soon after it was ready, and replaced without any pause: who kills
# one now and then meets nobody waiting, and a loop of such deaths still costs next to nothing.
SPARED_EVERY = 1.0
# A worker that lived this long (seconds) did not fail at its start.
SETTLED = 5.0
# With `--reload`, what runs in the old code has this long (seconds) to end: whoever saved a file wants to see the new,
# and a stream, or a debugger, would stay for good.
RELOAD_PATIENCE = 1.0
# Starts that fail in a row before a server that never served gives up.
GIVE_UP = 5


class Retirable(Protocol):
    @property
    def slot(self) -> int: ...
    @property
    def serves(self) -> int: ...


T = TypeVar("T", bound=Retirable)


def backoff(failures: int, chance: float) -> float:
    """Seconds to wait before the next start, after `failures` (at least 1) in a row; `chance` is in [0, 1).

    Jitter of up to a quarter keeps servers that failed together from trying together.
    """
    delay = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(failures - 1, 32))
    return delay * (1.0 - 0.25 * chance)


def surplus(workers: Sequence[T], target: int) -> list[T]:
    """Whom to retire when there are more than `target`: who serves least, and of those the highest slots."""
    chosen = sorted(workers, key=lambda worker: (worker.serves, -worker.slot))
    return chosen[: max(0, len(workers) - target)]


def overdue(since: float, limit: float, credit: float, now: float) -> bool:
    """Whether what began at `since` is over its `limit` (seconds; 0 means none), `credit` being time nobody had."""
    return limit > 0 and now - since - credit >= limit


def retirement(config: Config) -> float:
    """How long a generation that retires may stay (seconds); 0 means as long as it takes."""
    if config.reload:
        return RELOAD_PATIENCE
    return config.timeout + config.timeout_grace if config.timeout else 0.0


def lost_time(planned: float, now: float) -> float:
    """How long this process itself stood still, having meant to wake at `planned`; 0 for ordinary lateness.

    After SIGSTOP, a frozen container or a closed lid every request looks old, and none is to blame.
    """
    late = now - planned
    return late if late > 1.0 else 0.0
