"""How workers ended: the last ones, and how many for each reason. Standard library only, for the Supervisor."""

from __future__ import annotations

import signal
import time
from typing import NamedTuple

from django_prefork import layout
from django_prefork.layout import WORD
from django_prefork.scoreboard import Scoreboard


class End(NamedTuple):
    """`when` is Unix time, `reason` one of `layout.REASONS`, `text` what the log said."""

    when: float
    slot: int
    generation: int
    pid: int
    reason: str
    text: str


def note(board: Scoreboard, slot: int, generation: int, pid: int, reason: str, text: str) -> None:
    """By whoever reaped the worker."""
    number = layout.REASONS.index(reason)
    data = text.encode("utf-8", "replace")[: layout.END_TEXT_BYTES]
    fields = (
        (layout.E_SLOT, slot),
        (layout.E_GENERATION, generation),
        (layout.E_PID, pid),
        (layout.E_REASON, number),
        (layout.E_TEXT_LENGTH, len(data)),
    )
    with board.locked():
        count = board.words[layout.H_ENDS]
        start = layout.ENDS_AT + count % layout.ENDS * layout.END_BYTES
        board.clocks[start // WORD + layout.E_WHEN] = time.time()
        for field, value in fields:
            board.words[start // WORD + field] = value
        board.raw[start + layout.END_TEXT : start + layout.END_TEXT + len(data)] = data
        board.words[layout.H_REASONS + number] += 1
        board.words[layout.H_ENDS] = count + 1


def reason_of(status: int) -> str:
    """Of an end that nobody had asked for; `status` as of `os.waitstatus_to_exitcode`."""
    return "gone" if status == 0 else "killed" if status == -signal.SIGKILL else "crash"


def last(board: Scoreboard) -> list[End]:
    """Up to 64, the newest first."""
    count = board.words[layout.H_ENDS]
    return [_read(board, number) for number in range(count - 1, max(-1, count - 1 - layout.ENDS), -1)]


def _read(board: Scoreboard, number: int) -> End:
    start = layout.ENDS_AT + number % layout.ENDS * layout.END_BYTES
    words = board.words[start // WORD : (start + layout.END_TEXT) // WORD].tolist()
    text = bytes(board.raw[start + layout.END_TEXT : start + layout.END_BYTES])
    return End(
        board.clocks[start // WORD + layout.E_WHEN],
        words[layout.E_SLOT],
        words[layout.E_GENERATION],
        words[layout.E_PID],
        layout.REASONS[words[layout.E_REASON] % len(layout.REASONS)],
        text[: words[layout.E_TEXT_LENGTH]].decode("utf-8", "replace"),
    )


def by_reason(board: Scoreboard) -> dict[str, int]:
    """How many since the server was started."""
    start = layout.H_REASONS
    return dict(zip(layout.REASONS, board.words[start : start + len(layout.REASONS)].tolist(), strict=True))
