"""A worker's own row of the scoreboard, as it writes it.

All of this is on the way of a request, and nothing allocates more than a number or two. A field has one writer, so that
what it holds need not be read before it is written: sums are kept here and put down whole. They are there when the
worker is killed, whatever it was about, and the next one in the slot goes on with them.
"""

from __future__ import annotations

import struct
from bisect import bisect_left

from django_prefork import layout
from django_prefork.histogram import SIZES, TIMES
from django_prefork.layout import (
    ACCEPTED,
    ACTIVE,
    APPLICATION,
    APPLICATION_SECONDS,
    BEGAN,
    BODIES,
    CONNECTIONS,
    GAVE,
    GAVE_IDLE,
    LAST_QUEUE,
    LIMIT,
    QUEUE,
    QUEUE_SECONDS,
    RECEIVED,
    REFUSED,
    RESPONSE,
    SENT,
    SINCE,
    SPOOLED,
    STATE,
    STREAMS,
    TIME_BUCKETS,
    TOOK,
    TOOK_IDLE,
)

# One call that cuts what is too long and fills up with zeros; the byte behind ends the view's name of the last request.
_put_text = struct.Struct(f"{layout.TEXT_BYTES}sx").pack_into
_put_view = struct.Struct(f"{layout.VIEW_BYTES}s").pack_into

_TEXT_AT = layout.TEXT_AT

# Where the time of a request counts, by the hundreds of its status: 0, where nothing was answered, 1xx, 2xx ...
_BY_STATUS = tuple(APPLICATION + max(0, min(4, hundreds - 1)) * TIME_BUCKETS for hundreds in range(10))


class Row:
    """The row of `slot` on the board whose memory is `raw`."""

    __slots__ = (
        "_bodies",
        "_clocks",
        "_raw",
        "_seconds",
        "_streams",
        "_waited",
        "_words",
        "received",
        "sent",
    )

    def __init__(self, raw: memoryview, slot: int) -> None:
        start = layout.ROWS_AT + slot * layout.ROW_BYTES
        self._raw = raw[start : start + layout.ROW_BYTES]
        self._words = self._raw.cast("Q")
        self._clocks = self._raw.cast("d")
        self._streams = False
        self._bodies = self._words[BODIES]
        self._seconds = self._clocks[APPLICATION_SECONDS]
        self._waited = self._clocks[QUEUE_SECONDS]
        #: Bytes from clients, and for them, heads and all. Put down at a request's end.
        self.received = self._words[RECEIVED]
        self.sent = self._words[SENT]

    def state(self, state: int, now: float) -> None:
        """`scoreboard.State`, between requests."""
        self._clocks[SINCE] = -now
        self._words[STATE] = state

    def begin(self, text: bytes, now: float, waited: float = 0.0) -> None:
        """The application starts on a request that `waited` so long.

        `text`: the client, the request's id if it has one, its first line; line by line.
        """
        if waited:
            self.waited(waited)
        else:  # mostly
            self._clocks[LAST_QUEUE] = 0.0
            self._words[QUEUE] += 1
        _put_text(self._raw, _TEXT_AT, text)
        # Since when, and by its sign that a request runs: one word, which nobody can read half.
        self._clocks[SINCE] = now

    def view(self, name: bytes) -> None:
        """Django has found the view of the running request."""
        _put_view(self._raw, layout.VIEW_AT, name)

    def waited(self, seconds: float) -> None:
        """A request had, until its turn came."""
        clocks = self._clocks
        clocks[LAST_QUEUE] = seconds
        self._words[QUEUE + bisect_left(TIMES, seconds)] += 1
        clocks[QUEUE_SECONDS] = self._waited = self._waited + seconds

    def end(self, now: float, seconds: float, status: int, size: int) -> None:
        """The application has answered within `seconds`, `size` bytes of body; `status` 0: nobody was there to."""
        words = self._words
        words[_BY_STATUS[status // 100] + bisect_left(TIMES, seconds)] += 1
        words[RESPONSE + bisect_left(SIZES, size)] += 1
        words[BODIES] = self._bodies = self._bodies + size
        words[RECEIVED] = self.received
        words[SENT] = self.sent
        clocks = self._clocks
        clocks[APPLICATION_SECONDS] = self._seconds = self._seconds + seconds
        clocks[SINCE] = -now
        if self._streams:
            words[STREAMS] = self._streams = False

    def refused(self) -> None:
        """Answered by the server itself: what came was no request, or one too many."""
        self._words[REFUSED] += 1

    def since(self) -> float:
        """When the running request began, or last got on; negative while none runs."""
        return self._clocks[SINCE]

    def limit(self, seconds: float) -> None:
        """What the running request may take."""
        self._clocks[LIMIT] = seconds

    def progress(self, now: float) -> None:
        """A streaming response produced a piece: the time limit begins anew."""
        if not self._streams:
            self._clocks[BEGAN] = self._clocks[SINCE]
            self._words[STREAMS] = self._streams = True
        self._clocks[SINCE] = now

    def spool(self, count: int) -> None:
        """`count` more bytes of bodies or answers are on disk (fewer, if negative)."""
        self._words[SPOOLED] = max(0, self._words[SPOOLED] + count)

    # -- connections ---------------------------------------------------------------------------------------------------

    def accepted(self) -> None:
        self._words[ACCEPTED] += 1

    def took(self, begun: bool) -> None:
        """A sibling's connection; `begun`: a request on it has."""
        self._words[TOOK if begun else TOOK_IDLE] += 1

    def gave(self, begun: bool) -> None:
        self._words[GAVE if begun else GAVE_IDLE] += 1

    def connections(self, count: int) -> None:
        """So many are open."""
        self._words[CONNECTIONS] = count

    def look_around(self, active: int) -> None:
        """Every second or so: `active` connections are in the middle of something."""
        words = self._words
        words[ACTIVE] = active
        words[RECEIVED] = self.received
        words[SENT] = self.sent
