"""What the workers have counted: of one slot, of all of them, now and at each step of the last hour."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from django_prefork import layout
from django_prefork.histogram import TIMES, quantile
from django_prefork.layout import ANSWERS, COUNTERS, TIME_BUCKETS, WORD
from django_prefork.scoreboard import Scoreboard

_WHOLE = layout.WHOLE_COUNTERS - COUNTERS
_ALL = layout.COUNTERS_END - COUNTERS
# A step may be so much younger than it should be (seconds): the next is not put off by a whole turn for that.
_SLACK = 1.0


class Counters:
    """Only ever growing numbers; two of them subtracted tell of the time between."""

    def __init__(self, words: Sequence[int], seconds: Sequence[float]) -> None:
        self._words = words
        #: Spent in the application, and waited before it, over all requests.
        self.application_seconds, self.queue_seconds = seconds

    def __sub__(self, other: Counters) -> Counters:
        return Counters(
            [mine - theirs for mine, theirs in zip(self._words, other._words, strict=True)],
            (self.application_seconds - other.application_seconds, self.queue_seconds - other.queue_seconds),
        )

    def _counter(self, field: int) -> int:
        return self._words[field - COUNTERS]

    def _histogram(self, field: int, buckets: int) -> Sequence[int]:
        return self._words[field - COUNTERS : field - COUNTERS + buckets]

    @property
    def answers(self) -> dict[str, int]:
        """Requests, by the class of the answer; "none": the client was gone before there was one."""
        return {name: sum(self.application_of(number)) for number, name in enumerate(ANSWERS)}

    @property
    def requests(self) -> int:
        """That the application served."""
        return sum(self._histogram(layout.APPLICATION, len(ANSWERS) * TIME_BUCKETS))

    def application_of(self, answer: int) -> Sequence[int]:
        """How long the application took for requests of one of `ANSWERS`."""
        return self._histogram(layout.APPLICATION + answer * TIME_BUCKETS, TIME_BUCKETS)

    @property
    def application(self) -> Sequence[int]:
        """How long the application took, in the buckets of `TIMES`."""
        return [sum(column) for column in zip(*map(self.application_of, range(len(ANSWERS))), strict=True)]

    @property
    def queue(self) -> Sequence[int]:
        """How long requests waited for a worker, in the buckets of `TIMES`."""
        return self._histogram(layout.QUEUE, TIME_BUCKETS)

    @property
    def response(self) -> Sequence[int]:
        """Bytes of the answers' bodies, in the buckets of `SIZES`."""
        return self._histogram(layout.RESPONSE, layout.SIZE_BUCKETS)

    @property
    def bodies(self) -> int:
        """Bytes of all answers' bodies together."""
        return self._counter(layout.BODIES)

    @property
    def refused(self) -> int:
        """Answered by the server itself: what came was no request, or one too many."""
        return self._counter(layout.REFUSED)

    @property
    def received(self) -> int:
        """Bytes from clients, heads and all."""
        return self._counter(layout.RECEIVED)

    @property
    def sent(self) -> int:
        """Bytes to clients, heads and all."""
        return self._counter(layout.SENT)

    @property
    def accepted(self) -> int:
        """Connections that came over a listening socket."""
        return self._counter(layout.ACCEPTED)

    @property
    def handed_out(self) -> int:
        """Connections given to a sibling."""
        return self._counter(layout.GAVE) + self._counter(layout.GAVE_IDLE)

    @property
    def handed_in(self) -> int:
        """Connections taken over from a sibling."""
        return self._counter(layout.TOOK) + self._counter(layout.TOOK_IDLE)

    @property
    def handing_over(self) -> int:
        """Connections with a request on them that are on their way, if no worker was killed between two lines."""
        return max(0, self._counter(layout.GAVE) - self._counter(layout.TOOK))


def of_slot(board: Scoreboard, slot: int) -> Counters:
    """Of all workers that this slot has had."""
    return _read(board, board._base(slot) + COUNTERS)


def of_all(board: Scoreboard) -> Counters:
    """Of all workers that there have been."""
    rows = [of_slot(board, slot) for slot in range(board.high)]
    if not rows:
        return Counters([0] * _WHOLE, (0.0, 0.0))
    return Counters(
        [sum(column) for column in zip(*(row._words for row in rows), strict=True)],
        (sum(row.application_seconds for row in rows), sum(row.queue_seconds for row in rows)),
    )


def _read(board: Scoreboard, base: int) -> Counters:
    return Counters(board.words[base : base + _WHOLE].tolist(), board.clocks[base + _WHOLE : base + _ALL].tolist())


# -- the last hour -----------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A part of the last hour: it ended at `when` (monotonic seconds) and took `seconds`."""

    when: float
    seconds: float
    counters: Counters


def remember(board: Scoreboard, now: float) -> None:
    """By an Arbiter, every HISTORY_STEP or so: what the counters are now. Two of them that do it do no harm."""
    taken = _taken(board)
    if taken and now - taken[-1][0] < layout.HISTORY_STEP - _SLACK:
        return
    total = of_all(board)
    place = int(now / layout.HISTORY_STEP) % layout.HISTORY
    base = (layout.HISTORY_AT + place * layout.HISTORY_BYTES) // WORD
    # Without a time nobody reads what is half written.
    board.clocks[base] = 0.0
    for number, word in enumerate(total._words, base + 1):
        board.words[number] = word
    board.clocks[base + 1 + _WHOLE] = total.application_seconds
    board.clocks[base + 2 + _WHOLE] = total.queue_seconds
    board.clocks[base] = now


def _taken(board: Scoreboard) -> list[tuple[float, int]]:
    """When, and where it lies; the oldest first."""
    found = []
    for place in range(layout.HISTORY):
        base = (layout.HISTORY_AT + place * layout.HISTORY_BYTES) // WORD
        when = board.clocks[base]
        if when:
            found.append((when, base))
    return sorted(found)


def last_hour(board: Scoreboard) -> list[Step]:
    """Step by step, the oldest first; the last one ends now, and may be short."""
    now = time.monotonic()
    points = [(when, _read(board, base + 1)) for when, base in _taken(board) if now - when < 3600.0]
    points.append((now, of_all(board)))
    return [Step(later, later - earlier, after - before) for (earlier, before), (later, after) in pairwise(points)]


def lately(board: Scoreboard, seconds: float = 60.0) -> Step:
    """Of about the last `seconds`; of the whole time, where that was less."""
    now = time.monotonic()
    total = of_all(board)
    taken = _taken(board)
    old = [(when, base) for when, base in taken if now - when >= seconds - _SLACK]
    if old:
        when, base = old[-1]
        return Step(now, now - when, total - _read(board, base + 1))
    return Step(now, now - taken[0][0] if taken else 0.0, total)


def quantiles(counts: Sequence[int]) -> dict[str, float | None]:
    """The usual ones, in seconds; None where nothing was counted."""
    return {name: quantile(counts, TIMES, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
