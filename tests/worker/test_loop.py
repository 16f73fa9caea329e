from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from django_prefork.worker import loop as loop_module
from django_prefork.worker.loop import FOREVER, READ, WRITE, Loop


class Thing:
    """Watched and late; notes what it is told."""

    def __init__(self, deadline: float = FOREVER) -> None:
        self.deadline = deadline
        self.queued = FOREVER
        self.masks: list[int] = []
        self.late_at: list[float] = []

    def ready(self, mask: int) -> None:
        self.masks.append(mask)

    def late(self, now: float) -> None:
        self.late_at.append(now)

    def broken(self) -> None:
        self.masks.append(-1)


@pytest.fixture(params=["epoll", "selectors"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """Both: the second is what other systems than Linux have."""
    if request.param == "selectors":
        monkeypatch.setattr(loop_module, "_Epoll", loop_module._Selector)
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def test_who_is_ready_is_told(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    thing = Thing()
    loop.watch(pair[0].fileno(), thing, READ)
    assert not loop.wait(0.0)
    pair[1].send(b"x")
    assert loop.wait(1.0) and thing.masks == [READ]
    loop.change(pair[0].fileno(), WRITE)
    loop.wait(1.0)
    assert thing.masks == [READ, WRITE]
    loop.forget(pair[0].fileno())
    assert not loop.wait(0.0)


def test_who_shares_and_has_more_is_told_again_behind_the_others_and_no_more_often_than_they(loop: Loop) -> None:
    told: list[str] = []

    class Greedy(Thing):
        def ready(self, mask: int) -> None:
            told.append("greedy")
            loop.again(ends[0].fileno())

    class Other(Thing):
        def ready(self, mask: int) -> None:
            told.append("other")

    ends = [end for _ in range(3) for end in socket.socketpair()]
    loop.watch_shared(ends[0].fileno(), Greedy())
    for end in ends[2::2]:
        loop.watch(end.fileno(), Other(), READ)
    ends[1].send(b"x")
    loop.wait(1.0)
    assert told == ["greedy"], "alone, it has the next turn"
    for end in ends[3::2]:
        end.send(b"x")
    loop.wait(1.0)
    assert sorted(told[1:4]) == ["greedy", "other", "other"] and told[4:] == ["greedy"]
    for end in ends:
        end.close()


@pytest.mark.parametrize(("took", "order"), [(0.001, "cdab"), (0.0001, "abcd")])
def test_who_came_during_a_long_turn_comes_first_in_the_next(loop: Loop, took: float, order: str) -> None:
    told: list[str] = []
    pairs = {name: socket.socketpair() for name in "abcd"}

    class Named(Thing):
        def __init__(self, name: str) -> None:
            super().__init__()
            self._name = name

        def ready(self, mask: int) -> None:
            told.append(self._name)
            pairs[self._name][0].recv(1)

    def send(names: str) -> None:
        for name in names:
            pairs[name][1].send(b"x")

    class Last(Named):
        def ready(self, mask: int) -> None:
            super().ready(mask)
            if told == ["a", "b"]:
                loop.now += took
                send("cdab")

    for name, (ours, _) in pairs.items():
        loop.watch(ours.fileno(), Last(name) if name == "b" else Named(name), READ)
    send("ab")
    loop.wait(1.0)
    loop.wait(1.0)
    assert "".join(told) == "ab" + order
    for pair in pairs.values():
        for end in pair:
            loop.forget(end.fileno())
            end.close()


def test_a_deadline_is_told_once_and_not_early(loop: Loop) -> None:
    thing = Thing(loop.now + 0.05)
    loop.expect(thing)
    deadline = thing.deadline
    while not thing.late_at:
        loop.wait(1.0)
    assert thing.late_at[0] >= deadline
    thing.deadline = FOREVER
    assert thing.queued == FOREVER


def test_a_deadline_that_moved_away_is_not_told(loop: Loop) -> None:
    moved, marker = Thing(loop.now + 0.01), Thing(loop.now + 0.3)
    loop.expect(moved)
    loop.expect(marker)
    moved.deadline += 60
    while not marker.late_at:
        loop.wait(1.0)
    assert moved.late_at == [] and moved.queued > loop.now + 50


def test_what_is_released_is_not_kept(loop: Loop) -> None:
    things = [Thing(loop.now + 60 + n / 1000) for n in range(1000)]
    for thing in things:
        loop.expect(thing)
        loop.release(thing)
    assert not any(loop._queues.values())


def test_a_mistake_costs_only_who_made_it(
    loop: Loop, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Thing):
        def ready(self, mask: int) -> None:
            raise ZeroDivisionError

    read, write = os.pipe()
    broken, sound = Broken(), Thing()
    loop.watch(read, broken, READ)
    loop.watch(pair[0].fileno(), sound, READ)
    os.write(write, b"x")
    pair[1].send(b"x")
    while not sound.masks:
        loop.wait(1.0)
    assert broken.masks == [-1] and "a mistake of the server's" in caplog.text
    os.close(read)
    os.close(write)
