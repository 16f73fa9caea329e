from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from django_prefork.worker.collector import BOUND, PRESSING, PROMOTE, Collector


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    threshold, enabled = gc.get_threshold(), gc.isenabled()
    yield
    gc.set_threshold(*threshold)
    (gc.enable if enabled else gc.disable)()


def test_python_itself_collects_only_beyond_the_bound() -> None:
    collected: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        collected.append(phase)

    collector = Collector()
    usual = gc.get_threshold()[0]
    collector.start()
    gc.collect()
    gc.callbacks.append(note)
    try:
        garbage: list[list[int]] = []
        assert not collector.due()
        garbage += [[] for _ in range(usual + 100)]
        assert collector.due()
        assert collected == []
        garbage += [[] for _ in range(BOUND)]
        assert collected[:2] == ["start", "stop"]
    finally:
        gc.callbacks.remove(note)


def test_young_objects_mostly_older_ones_sometimes_all_of_them_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: collected.append(generation) or 0)
    for _ in range(100):
        collector.collect(waits=False)
    assert [collected.count(generation) for generation in (0, 1, 2)] == [90, 9, 1]


def test_while_somebody_waits_the_older_ones_are_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: collected.append(generation) or 0)
    for _ in range(PROMOTE * PRESSING - 1):
        collector.collect(waits=True)
    assert set(collected) == {0}
    collector.collect(waits=False)
    assert collected[-1] == 1, "at the first moment when nobody does"
    for _ in range(PROMOTE * PRESSING):
        collector.collect(waits=True)
    assert collected[-1] == 1, "or when it cannot be put off any more"


def test_full_collections_that_take_long_come_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    collected: list[tuple[int, float]] = []

    def collect(generation: int = 2) -> int:
        collected.append((generation, clock[0]))
        clock[0] += 0.05 if generation == 2 else 0.0
        return 0

    monkeypatch.setattr(gc, "collect", collect)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    collector = Collector()
    for _ in range(1500):
        collector.collect(waits=False)
        clock[0] += 0.005
    full = [when for generation, when in collected if generation == 2]
    assert len(full) == 2 and full[1] - full[0] >= 5.0


@pytest.mark.parametrize("way", ["disabled", "threshold"])
def test_a_collector_that_the_project_turned_off_stays_off(way: str) -> None:
    if way == "disabled":
        gc.disable()
    else:
        gc.set_threshold(0)
    before = gc.get_threshold()
    collector = Collector()
    collector.start()
    assert gc.get_threshold() == before
    assert not collector.due()
