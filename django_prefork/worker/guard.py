"""The thread beside the application: while one request runs for long, it looks after all the others.

The worker serves inline, so its loop stands still while a view runs. What becomes readable then is handed to a sibling
that is idle, or waits in the queue for whoever is free first; what half-sent answers have still to send goes on being
sent. The guard sleeps without waking while the worker is idle, and there is none where nobody could take over.

It needs the GIL: a view that computes in Python gives it up every 0.5 ms (`SWITCH`), C code that holds it silences it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("django_prefork")

# How often Python threads change places (seconds). With Python's own 5 ms ten hand-offs beside a busy view took 36 ms,
# with this 5; about 1 % of a CPU while the guard acts.
SWITCH = 0.0005
# How often it looks again while a request runs on (seconds).
TICK = 0.002
# It parks after this time without a request (seconds): waking it costs the next request 10 us, once.
PARK = 0.5


class Guard:
    """`after` is `handoff_after` in seconds; `help_out` what it does then, again and again, while the request runs."""

    def __init__(self, after: float, help_out: Callable[[], None]) -> None:
        self._after = after
        self._help_out = help_out
        #: When the running request began (monotonic); 0 while none runs. Written by the main thread alone.
        self.began = 0.0
        #: Whether it sleeps until it is woken; whether it may be acting. Written by the guard (and `wake`) alone.
        self.parked = True
        self.acting = False
        self.lock = threading.Lock()
        self._wake = threading.Event()

    def start(self) -> None:
        sys.setswitchinterval(SWITCH)
        threading.Thread(target=self._run, name="prefork-guard", daemon=True).start()

    # Both threads first write their own word and then read the other's, so that at least one of them sees the other.

    def begin(self, now: float) -> None:
        """By the main thread: the application starts."""
        self.began = now
        if self.parked:
            self.parked = False
            self._wake.set()

    def end(self) -> None:
        """By the main thread: the application is done, and the loop its own again."""
        self.began = 0.0
        if self.acting:
            with self.lock:
                pass

    def _run(self) -> None:
        seen = time.monotonic()
        while True:
            began = self.began
            now = time.monotonic()
            if not began:
                if now - seen < PARK:
                    time.sleep(self._after)
                    continue
                self._wake.clear()
                self.parked = True
                if not self.began:
                    self._wake.wait()
                self.parked = False
                seen = time.monotonic()
            elif now - began < self._after:
                seen = now
                time.sleep(began + self._after - now)
            else:
                seen = now
                self._act(began)
                time.sleep(TICK)

    def _act(self, began: float) -> None:
        with self.lock:
            self.acting = True
            try:
                if self.began == began:  # still the same request: the main thread is in the application
                    self._help_out()
            except Exception:
                logger.exception("a mistake of the server's: please report it")
            finally:
                self.acting = False
