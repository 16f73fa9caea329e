"""What the Arbiter writes down for whoever looks inside: memory, the last hour, how workers ended, and itself."""

from __future__ import annotations

from django_prefork import counters, ends, layout
from django_prefork.arbiter.children import Child, Children
from django_prefork.memory import memory
from django_prefork.scoreboard import Scoreboard
from django_prefork.scoreboard import Stage as EraStage

# A worker's memory is looked at this often (seconds). The kernel walks its pages for that, a millisecond or more: so
# never two workers at once, and a pause between them.
WEIGH_EVERY = 10.0
WEIGH_PAUSE = 0.25


class Chronicle:
    """Of one generation."""

    def __init__(self, board: Scoreboard, generation: int, children: Children) -> None:
        self._board = board
        self._generation = generation
        self._children = children
        self._told: tuple[EraStage, int] | None = None
        self._weigh_at = 0.0
        self._remember_at = 0.0

    def tell(self, stage: EraStage, target: int) -> None:
        """Where the generation is in its life, and how many workers it is to have."""
        if self._told != (stage, target):
            self._told = stage, target
            self._board.tell(self._generation, stage, target)

    def look(self, now: float) -> float:
        """Write what is due; return when to look again (monotonic)."""
        if now >= self._remember_at:
            counters.remember(self._board, now)
            self._remember_at = now + layout.HISTORY_STEP
        if now >= self._weigh_at:
            self._weigh_at = now + WEIGH_PAUSE
            due = min(self._children, key=lambda child: child.weigh_next, default=None)
            if due is not None and now >= due.weigh_next:
                due.weigh_next = now + WEIGH_EVERY
                self._board.weigh(due.slot, *(memory(due.pid) or (0, 0)))
            else:
                self._weigh_at = due.weigh_next if due is not None else now + WEIGH_EVERY
        return min(self._remember_at, self._weigh_at)

    def ended(self, child: Child, status: int, expected: bool, text: str) -> None:
        """`status` as of `os.waitstatus_to_exitcode`; `text` is what the log says, if nobody had asked for it."""
        if expected:
            reason, text = child.reason, child.why
        else:
            reason = ends.reason_of(status)
        ends.note(self._board, child.slot, self._generation, child.pid, reason, text)
