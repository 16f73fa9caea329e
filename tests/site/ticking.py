"""An app that has timers from its import on, as sampling profilers do."""

from __future__ import annotations

import signal

for timer, number in (
    (signal.ITIMER_REAL, signal.SIGALRM),
    (signal.ITIMER_VIRTUAL, signal.SIGVTALRM),
    (signal.ITIMER_PROF, signal.SIGPROF),
):
    signal.signal(number, lambda number, frame: None)
    signal.setitimer(timer, 0.01, 0.01)
