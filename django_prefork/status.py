"""What the server is doing, for whoever asks from within it: views, templates, the dashboard, the status listener.

    from django_prefork import status

    snapshot = status.snapshot()          # None outside of a server (runserver, tests, a shell)
    for worker in snapshot.workers: ...

All of it is read from memory that the processes share: nobody is asked, and a worker that is stuck is told of like any
other. Durations are seconds, sizes bytes, moments Unix time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from django_prefork.scoreboard import Scoreboard
from django_prefork.snapshot import Listening, Point, Snapshot, last_hour_of, snapshot_of

# How long the stacks of a worker are waited for (seconds). C code writes them within milliseconds.
STACKS_SECONDS = 2.0


class StatusError(Exception):
    """What was asked for cannot be had. The text is one sentence for people."""


# -- which server this is ----------------------------------------------------------------------------------------------


_board: Scoreboard | None = None
_listeners: Sequence[Listening] = ()
_say: Callable[[str], None] | None = None


def attach(board: Scoreboard, listeners: Sequence[Listening], say: Callable[[str], None] | None = None) -> None:
    """By the server: this process is one of its own. `say` tells its Arbiter something."""
    global _board, _listeners, _say
    _board, _listeners, _say = board, listeners, say


# -- asking ------------------------------------------------------------------------------------------------------------


def snapshot() -> Snapshot | None:
    """All of it, now; None if this process is no server's. Costs some 0.1 ms for each worker."""
    return None if _board is None else snapshot_of(_board, _listeners)


def last_hour() -> list[Point]:
    """Requests, errors (5xx) and quantiles over the last hour, the oldest first. Empty outside of a server."""
    return [] if _board is None else last_hour_of(_board)


def stacks(slot: int) -> str:
    """The stacks of all threads of the worker in `slot`, now, whatever it is doing. Raises `StatusError`."""
    board = _attached()
    if not 0 <= slot < board.high or not board.read(slot).pid:
        raise StatusError(f"There is no worker in slot {slot}.")
    asked = time.monotonic()
    _order(f"stacks {slot}")
    while time.monotonic() - asked < STACKS_SECONDS:
        when, text = board.stacks(slot)
        if when >= asked:
            return text
        time.sleep(0.002)
    raise StatusError(f"The worker in slot {slot} gave no stacks: it has ended, or its Arbiter is not there to ask it.")


def reload(who: str) -> None:
    """New code, same PID, as with SIGHUP; `who` asks for it, for the log. Raises `StatusError`."""
    _attached()
    _order("reload " + " ".join(who.split()))


def _attached() -> Scoreboard:
    if _board is None or _say is None:
        raise StatusError("This process is no worker of a server.")
    return _board


def _order(words: str) -> None:
    assert _say is not None
    _say(words)
