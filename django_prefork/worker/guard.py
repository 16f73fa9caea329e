"""The thread beside the application: while one request runs for long, it looks after all the others, and names it.

The worker serves inline, so its loop stands still while a view runs. What becomes readable then is handed to a sibling
that is idle, or waits in the queue for whoever is free first; what half-sent answers have still to send goes on being
sent. A request that is slow is logged with its stack. The guard sleeps without waking while the worker is idle, and
there is none where nothing needs it.

It needs the GIL: a view that computes in Python gives it up every 0.5 ms (`SWITCH`), C code that holds it silences it.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

logger = logging.getLogger("django_prefork")

# How often Python threads change places (seconds). With Python's own 5 ms ten hand-offs beside a busy view took 36 ms,
# with this 5; about 1 % of a CPU while the guard acts.
SWITCH = 0.0005
# How often it looks again while a request runs on (seconds).
TICK = 0.002
# A worker that has answered so many requests since the last look is about short ones, and looked at half as often: a
# look costs 15 us.
MANY = 50
# So often it looks in any case (seconds): answers may be waiting, or lines of the access log.
OFTEN = 0.005
# A request that has had the CPU for so long (nanoseconds) since it was looked at does not take long for want of one.
OWN = 2_000_000
# It parks after this time without a request (seconds): waking it costs the next request 10 us, once.
PARK = 0.5

_PACKAGE = str(Path(__file__).parent.parent)


class Guard:
    """Of the thread that makes it, which is the one that runs the application.

    `after` (seconds into a request) is when `help_out` is called, again and again while the request runs. `slow`
    (seconds) is when `tell` is, with the request's age and the frame it has come to, and again at each doubling.
    Either may be infinite. `answered` tells how many requests were. `meanwhile` is called at each look that finds one
    running for longer than a look takes to come, which is OFTEN seconds at the most (twice that after MANY answers).
    """

    def __init__(
        self,
        help_out: Callable[[], None],
        tell: Callable[[float, FrameType], None],
        answered: Callable[[], int],
        meanwhile: Callable[[], None] = lambda: None,
        *,
        after: float = math.inf,
        slow: float = math.inf,
    ) -> None:
        self.after = after
        self._help_out = help_out
        self._slow = slow
        self._tell = tell
        self._answered = answered
        self._meanwhile = meanwhile
        self._thread = threading.get_ident()
        self._number = threading.get_native_id()
        # Both threads write their own word first, and then read the other's: one of them at least sees the other.
        #: When the running request began (monotonic); 0 while none runs. Written by the main thread alone, which then
        #: calls `wake` if the guard is `parked`, or `part` if it is `acting`; no call where it is neither, as mostly.
        self.began = 0.0
        # Of which request it was asked last whether it starves (when it began), and what CPU time it had by then.
        self._asked = 0.0
        self._had = 0
        #: Whether it sleeps until it is woken; whether it may be acting. Written by the guard (and `wake`) alone.
        self.parked = True
        self.acting = False
        self.lock = threading.Lock()
        self._wake = threading.Event()

    def share(self, after: float) -> None:
        """By the main thread: from now on there is somebody to hand connections to."""
        sys.setswitchinterval(SWITCH)
        self.after = after

    def start(self) -> None:
        if self.after != math.inf:
            self.share(self.after)
        threading.Thread(target=self._run, name="prefork-guard", daemon=True).start()

    def wake(self) -> None:
        """By the main thread: the application starts."""
        self.parked = False
        self._wake.set()

    def part(self) -> None:
        """By the main thread: the application is done; returns when the loop is its own again."""
        with self.lock:
            pass

    def _run(self) -> None:
        seen = time.monotonic()
        known = 0.0
        due = self._slow  # age at which the request `known` is slow, or is so once more
        answered = 0
        while True:
            began = self.began
            now = time.monotonic()
            before, answered = answered, self._answered()
            tick = min(self.after, self._slow, OFTEN)
            if answered - before > MANY:
                tick = min(2 * tick, self._slow)
            if not began:
                if now - seen < PARK:
                    time.sleep(tick)
                    continue
                self._wake.clear()
                self.parked = True
                if not self.began:
                    self._wake.wait()
                self.parked = False
                seen = time.monotonic()
                continue
            seen = now
            age = now - began
            if began != known:
                known, due = began, self._slow
            if age >= tick:
                self._act(began, self._meanwhile)
            if age >= due:
                while due <= age:
                    due *= 2
                self._look(began, age)
            if age >= self.after:
                if not self._starves(began):
                    self._act(began, self._help_out)
                time.sleep(min(TICK, max(0.0, due - age)))
            elif tick > self.after:
                time.sleep(tick)
            else:
                # No longer than the limits themselves: by then the next request may be over one of them.
                time.sleep(min(tick, self.after - age, due - age))

    def _starves(self, began: float) -> bool:
        """Whether the request that began then takes long for want of a CPU alone.

        Siblings that look idle would not have it sooner, and to hand a connection over costs as much as three small
        requests: with 4 busy workers on one CPU that was a tenth of it. One that has had the CPU for a while (OWN)
        takes long by itself: with whatever else there is on the machine, a sibling that rests may have a CPU before.
        """
        if sys.platform != "linux":
            return False
        clock = time.pthread_getcpuclockid(self._thread)
        before = time.clock_gettime_ns(clock)
        if began != self._asked:
            self._asked, self._had = began, before
        elif before - self._had > OWN:
            return False
        try:
            with open(f"/proc/self/task/{self._number}/stat", "rb", buffering=0) as file:
                # proc_pid_stat(5); the name before the state may hold anything.
                ready = file.read(128).rpartition(b") ")[2].startswith(b"R")
        except OSError:
            return False
        return ready and time.clock_gettime_ns(clock) == before

    def _act(self, began: float, do: Callable[[], None]) -> None:
        with self.lock:
            self.acting = True
            try:
                if self.began == began:  # still the same request: the main thread is in the application
                    do()
            except Exception:
                logger.exception("a mistake of the server's: please report it")
            finally:
                self.acting = False

    def _look(self, began: float, age: float) -> None:
        frame = sys._current_frames().get(self._thread)
        try:
            if frame is not None and self.began == began:  # else it has ended meanwhile, and the frame is another's
                self._tell(age, frame)
        except Exception:
            logger.exception("a mistake of the server's: please report it")


def stack_of(frame: FrameType) -> str:
    """Where the application has come to, as a traceback tells it: without the server's frames that lead there."""
    stack = traceback.extract_stack(frame)
    outer = [index for index, entry in enumerate(stack) if entry.filename.startswith(_PACKAGE)]
    inner = stack[outer[-1] + 1 :] if outer else stack
    return "".join(traceback.format_list(inner or stack)).rstrip()
