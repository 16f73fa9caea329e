"""Garbage is collected between requests.

Python collects when enough objects have come together, and that is within a request: there they come from. Here its
threshold is so high that no request but a huge one reaches it, and the worker collects as often as Python would have.
Young objects at once, even where somebody waits: that takes 0.1 ms, and ten times as many later took 1.5 ms instead of
1, since by then they had left the processor's caches. Older ones when nobody waits.
"""

from __future__ import annotations

import gc
import time

# So many more objects made than freed (containers, as the collector counts them) turn Python's own collector on within
# one request: some 10 MB of them, and a pause of a few milliseconds.
BOUND = 50_000
# A worker that is never idle collects the older ones all the same, after so many times as many collections as Python
# would wait for.
PRESSING = 10
# After so many collections of one generation comes one of the next, as Python has it.
PROMOTE = 10
# A full collection may take this share of the time: one of 50 ms, every 5 seconds at most.
FULL_SHARE = 0.01


class Collector:
    """Of one worker. `due()` costs some 0.1 us."""

    def __init__(self) -> None:
        self._usual = gc.get_threshold()[0]
        self._young = self._middle = 0  # collections of one generation since the last one of the next
        self._full_at = 0.0
        #: False where the project has turned the collector off: that is left as it is.
        self.active = gc.isenabled() and self._usual > 0

    def start(self) -> None:
        """From here on nothing is collected within a request, up to `BOUND`."""
        if self.active:
            gc.set_threshold(max(self._usual, BOUND), *gc.get_threshold()[1:])

    def due(self) -> bool:
        """Whether Python would have collected by now."""
        return self.active and gc.get_count()[0] > self._usual

    def collect(self, waits: bool) -> None:
        """The young objects; every tenth time the middle ones, too, and every hundredth all, if not too often.

        `waits`: so does somebody, and what takes longer is put off.
        """
        self._young += 1
        if self._young < (PROMOTE * PRESSING if waits else PROMOTE):
            gc.collect(0)
            return
        self._young = 0
        self._middle += 1
        if self._middle < PROMOTE or time.monotonic() < self._full_at:
            gc.collect(1)
        else:
            self._middle = 0
            began = time.monotonic()
            gc.collect()
            now = time.monotonic()
            self._full_at = now + (now - began) / FULL_SHARE
