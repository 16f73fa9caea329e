"""Workers that their own Arbiter does not see off: it was lost, or it is late."""

from __future__ import annotations

import os
import time

from django_prefork import ends
from django_prefork.scoreboard import Reading, Scoreboard
from django_prefork.supervisor.generation import Generation
from django_prefork.supervisor.system import alive, how, kill, parent, say


class Workers:
    """Of all generations, as the scoreboard has them."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board

    def of(self, generation: Generation) -> list[Reading]:
        found = []
        for reading in self._board.occupied():
            if reading.generation != generation.number:
                continue
            if generation.pid is None and not alive(reading.pid):
                self._board.free(reading.slot)  # not our child here (macOS), or it ended between two looks
            else:
                found.append(reading)
        return found

    def kill(self, generation: Generation) -> None:
        """All of them, naming what they serve."""
        for reading in self.of(generation):
            name = f"worker={reading.slot} gen={reading.generation} pid={reading.pid}"
            if reading.request:
                name += f" serving {reading.request!r} for {time.monotonic() - reading.since:.1f} s"
            say("ERROR", f"{name} has not left: killed")
            # The workers wrote that number, and they are less than we are.
            if parent(reading.pid) in (None, os.getpid(), generation.pid):
                kill(reading.pid)

    def ended(self, pid: int, status: int) -> None:
        """A child of ours that is no Arbiter: a worker of one that was lost, or, as PID 1, anybody's orphan."""
        for reading in self._board.occupied():
            if reading.pid == pid:
                self._board.free(reading.slot)
                name = f"worker={reading.slot} gen={reading.generation} pid={pid}"
                text = how(status) if status else "gone"
                say("ERROR" if status else "INFO", f"{name} {text}")
                meant = status == 0 and self._board.released(reading.generation)
                reason = "reload" if meant else ends.reason_of(status)
                ends.note(self._board, reading.slot, reading.generation, pid, reason, text)
