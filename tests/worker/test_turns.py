"""The worker's turns: how long it waits for events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_prefork.config import Config
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker.loop import Loop
from django_prefork.worker.worker import LOOK, Worker


class HoldingLog:
    """An access log that holds lines after some turns, and remembers how much was served in each."""

    to_logger = False

    def __init__(self, holds: Iterator[bool]) -> None:
        self._holds = holds
        self.served: list[int] = []

    def hold(self, now: float, served: int) -> bool:
        self.served.append(served)
        return next(self._holds)


def test_no_turn_waits_while_lines_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    log: Any = HoldingLog(iter([False, True, False, False]))
    events = iter([8, 0, 0, 0])
    waits: list[float] = []

    def wait(loop: Loop, seconds: float) -> int:
        waits.append(seconds)
        if len(waits) == 4:
            worker.leaving = "the test is over"
        return next(events)

    monkeypatch.setattr(Worker, "_boot", lambda self: None)
    monkeypatch.setattr(Loop, "wait", wait)
    worker = Worker(
        lambda environ, start_response: [],
        Config.of(workers=1, collect_between_requests=False, handoff_after=0),
        [], Scoreboard.create(1), slot=0, generation=1, life=-1, pipe=-1, dump=-1, access_log=log, queues=[],
    )  # fmt: skip
    worker.run()
    assert waits == [LOOK, 0.0, LOOK, LOOK]
    assert log.served == [0, 8, 0, 0]
