"""Who is let in, and in which order, in one turn of the loop."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from django_prefork.scoreboard import Scoreboard
from django_prefork.worker import handoff
from django_prefork.worker.doors import Doors
from django_prefork.worker.handoff import Handed, Queues
from django_prefork.worker.loop import READ, Loop

KEPT = 3


class Listener(NamedTuple):
    """As the server has it."""

    socket: socket.socket
    own: bool = True
    family: int = socket.AF_INET
    bind: str = "127.0.0.1:80"
    host: str = "127.0.0.1"
    port: str = "80"

    def close(self) -> None:
        self.socket.close()


class Kept:
    """A connection that always has a request."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def ready(self, mask: int) -> None:
        self._room.came.append("kept")
        self._room.meanwhile()

    def broken(self) -> None:
        pytest.fail("a mistake")


class Room:
    """A worker with KEPT busy connections behind its doors, and what came to it, in order."""

    def __init__(self, loop: Loop) -> None:
        self.came: list[str] = []
        self.idle_siblings = False
        self.loop = loop
        self.queues = Queues(queues) if (queues := handoff.make()) else None
        self._ends = [end for _ in range(KEPT) for end in socket.socketpair()]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self._clients: list[socket.socket] = []
        row = Scoreboard.create(1).row(0)
        self.doors = Doors(self, loop, [Listener(self.listener)], self.queues, {}, 64, row)
        self.doors.open()

    def meanwhile(self) -> None:
        """While a kept one is served."""

    def welcome(self, handed: Handed, template: dict[str, Any]) -> None:
        self.came.append("handed" if handed.since else "new")
        handed.sock.close()

    def has_room(self) -> bool:
        return True

    def make_room(self, count: int) -> None:
        pytest.fail("there is room")

    def has_idle_siblings(self) -> bool:
        return self.idle_siblings

    def connect(self, count: int) -> None:
        self._clients += [socket.create_connection(self.listener.getsockname()) for _ in range(count)]

    def keep_busy(self) -> None:
        for ours, theirs in zip(self._ends[::2], self._ends[1::2], strict=True):
            self.loop.watch(ours.fileno(), Kept(self), READ)
            theirs.send(b"x")

    def hand_over(self) -> None:
        assert self.queues is not None
        one, other = socket.socketpair()
        assert self.queues.ready.give(one, ("127.0.0.1", "1"), "127.0.0.1:80", b"", 1.0)
        one.close()
        self._clients.append(other)

    def turn(self) -> list[str]:
        self.came.clear()
        self.loop.wait(1.0)
        return self.came.copy()

    def close(self) -> None:
        for sock in (*self._ends, *self._clients, self.listener):
            sock.close()
        if self.queues is not None:
            self.queues.close()


@pytest.fixture
def room() -> Iterator[Room]:
    loop = Loop()
    room = Room(loop)
    yield room
    room.close()
    loop.close()


def test_as_many_new_ones_as_kept_ones_where_no_sibling_is_idle(room: Room) -> None:
    room.connect(KEPT + 2)
    room.keep_busy()
    assert sorted(room.turn()) == ["kept"] * KEPT + ["new"] * KEPT
    assert sorted(room.turn()) == ["kept"] * KEPT + ["new"] * 2


def test_one_at_a_time_where_a_sibling_is_idle(room: Room) -> None:
    room.idle_siblings = True
    room.connect(2)
    room.keep_busy()
    for _ in range(2):
        assert sorted(room.turn()) == ["kept"] * KEPT + ["new"]


def test_one_at_a_time_where_there_is_nothing_else_to_do(room: Room) -> None:
    room.connect(2)
    assert room.turn() == ["new"] and room.turn() == ["new"]


def test_who_comes_from_a_sibling_in_the_middle_of_a_turn_is_before_other_new_ones(room: Room) -> None:
    if room.queues is None:
        pytest.skip("no hand-off on this system")
    room.connect(KEPT)
    room.keep_busy()
    room.meanwhile = lambda: room.came.count("kept") == 1 and room.hand_over()  # type: ignore[method-assign]
    assert [who for who in room.turn() if who != "kept"] == ["new", "handed", "new"]


def test_of_those_from_siblings_as_many_as_kept_ones(room: Room) -> None:
    if room.queues is None:
        pytest.skip("no hand-off on this system")
    for _ in range(KEPT + 1):
        room.hand_over()
    room.keep_busy()
    assert sorted(room.turn()) == ["handed"] * KEPT + ["kept"] * KEPT


def test_a_door_that_closes_in_the_middle_of_a_turn_lets_nobody_in(room: Room) -> None:
    room.connect(KEPT)
    room.keep_busy()
    room.meanwhile = lambda: room.doors.close(stopping=False)  # type: ignore[method-assign]
    came = room.turn()
    # One more as it closes: perhaps this worker was the one that was woken for it.
    assert came.count("kept") == KEPT and came.count("new") <= 2
    assert room.turn() == ["kept"] * KEPT
