"""Answers of one turn that wait for each other: which do, for how long, and that none is lost by it."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_prefork.http.body import LengthBody
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker import connection as connection_module
from django_prefork.worker import loop as loop_module
from django_prefork.worker import sharing
from django_prefork.worker.connection import Connection
from django_prefork.worker.cork import CALM, HOLD, LONGEST, SHORTEST, SLOW
from tests.harness import PATIENCE
from tests.worker.host import Host, Time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has MSG_MORE")

REQUEST = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SHORT = (SHORTEST + LONGEST) / 2
# The kernel sends by itself what it has held for so long (seconds).
KERNEL = 0.2


class Told(socket.socket):
    """A server's end that knows whether its answer waits."""

    waits = False

    def send(self, data: Any, flags: int = 0) -> int:
        self.waits = bool(flags & socket.MSG_MORE)
        return super().send(data, flags)

    def setsockopt(self, *arguments: Any) -> None:
        super().setsockopt(*arguments)
        if arguments == (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1):
            self.waits = False

    def close(self) -> None:
        super().close()
        self.waits = False


class Busy(Host):
    """Each request takes `seconds`, `during` is done in each, and `seen` says whose answers waited at the end of it."""

    def __init__(self, time: Time) -> None:
        super().__init__(Scoreboard.create(1), 0)
        self.time = time
        self.loop.cork.guarded = True
        self.seconds: dict[str, float] = {}
        self.during: Callable[[str], None] = lambda target: None
        self.ends: list[Told] = []
        self.clients: list[socket.socket] = []
        self.seen: list[list[int]] = []

    def connect(self, count: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(count):
                client = socket.create_connection(listener.getsockname())
                client.settimeout(PATIENCE)
                sock, _ = listener.accept()
                end = Told(fileno=sock.detach())
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.clients.append(client)
                self.ends.append(end)
                self.welcome(end)

    def serve(self, client: Connection, request: Any) -> bool:
        self.time.now += self.seconds.get(request.target, SHORT)
        self.during(request.target)
        client.answer(ANSWER)
        self.seen.append([number for number, end in enumerate(self.ends) if end.waits])
        return True

    @property
    def ended(self) -> float:
        return self.time.now

    def turn(self, *who: int) -> list[list[int]]:
        """A request of each, all in one turn; returns whose answers waited when each was done."""
        self.seen = []
        for number in who:
            self.clients[number].sendall(REQUEST % number)
        for number in who:
            assert select.select([self.ends[number]], [], [], PATIENCE)[0]
        assert self.loop.wait(PATIENCE)
        assert len(self.seen) == len(who)
        assert not any(end.waits for end in self.ends), "behind a turn, nothing waits"
        for number in who:
            assert self.clients[number].recv(len(ANSWER)) == ANSWER
        return self.seen


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    time = Time()
    monkeypatch.setattr(loop_module, "time", time)
    monkeypatch.setattr(connection_module, "time", time)
    busy = Busy(time)
    busy.connect(6)
    yield busy
    for sock in (*busy.clients, *busy.ends):
        sock.close()
    busy.loop.close()


def test_short_requests_of_one_turn_are_answered_together(busy: Busy) -> None:
    assert busy.turn(0) == [[]]
    assert busy.turn(0, 1, 2, 3) == [[0], [0, 1], [0, 1, 2], [0, 1, 2]]
    # The last one has nothing to wait for, and a single one neither.
    assert busy.turn(4) == [[]]


def test_nothing_waits_for_longer_than_a_moment_and_a_request(busy: Busy) -> None:
    busy.turn(0)
    took = HOLD * 0.4
    busy.seconds = dict.fromkeys(("/0", "/1", "/2", "/3", "/4"), took)
    # After three of them the moment is over.
    assert busy.turn(0, 1, 2, 3, 4, 5) == [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4]]


@pytest.mark.parametrize("took", [SHORTEST / 2, LONGEST * 2])
def test_requests_that_are_not_worth_it_are_answered_at_once(busy: Busy, took: float) -> None:
    busy.seconds = dict.fromkeys(("/0", "/1", "/2"), took)
    busy.turn(0, 1, 2)
    assert busy.turn(0, 1, 2) == [[], [], []]


@pytest.mark.parametrize("who", [(0,), (1, 0), (0, 1, 2)])
def test_behind_a_slow_request_nothing_waits_for_a_while(busy: Busy, who: tuple[int, ...]) -> None:
    busy.turn(1)
    busy.seconds["/0"] = SLOW * 1.01
    busy.turn(*who)
    slow = busy.time.now
    while busy.time.now < slow + CALM - HOLD:
        assert busy.turn(1, 2, 3) == [[], [], []]
        busy.time.now += CALM / 10
    busy.time.now = slow + CALM
    busy.turn(1)
    assert busy.turn(1, 2, 3) == [[1], [1, 2], [1, 2]]


def test_without_a_guard_nothing_waits(busy: Busy) -> None:
    cork = busy.loop.cork
    cork.guarded = False
    busy.turn(0)
    assert not cork.wanted
    assert busy.turn(0, 1, 2) == [[], [], []]
    assert cork.wanted


def test_another_thread_lets_go_while_a_request_takes_long(busy: Busy) -> None:
    busy.turn(0)
    received: list[bytes] = []

    def push(target: str) -> None:
        if target == "/2":
            assert busy.ends[0].waits and busy.ends[1].waits
            thread = threading.Thread(target=busy.loop.cork.push)
            thread.start()
            thread.join()
            for client in busy.clients[:2]:
                # Long before the kernel would by itself.
                assert select.select([client], [], [], KERNEL / 2)[0]
                received.append(client.recv(len(ANSWER), socket.MSG_PEEK))

    busy.during = push
    busy.turn(0, 1, 2, 3)
    assert received == [ANSWER, ANSWER]


def test_a_client_that_asks_again_unanswered_is_answered_in_order(busy: Busy) -> None:
    busy.turn(0)
    busy.seen = []
    busy.clients[0].sendall(REQUEST % 0 + REQUEST % 1)
    busy.clients[1].sendall(REQUEST % 1)
    assert busy.loop.wait(PATIENCE)
    assert busy.seen == [[0], [0]]
    busy.later.popleft().next()
    assert busy.seen == [[0], [0], []]
    assert busy.clients[0].recv(2 * len(ANSWER), socket.MSG_WAITALL) == ANSWER * 2
    assert busy.clients[1].recv(len(ANSWER)) == ANSWER


def test_a_connection_that_ends_meanwhile_harms_no_other(busy: Busy) -> None:
    busy.turn(0)

    def close(target: str) -> None:
        if target == "/2":
            busy.ends[0].close()

    busy.during = close
    busy.turn(0, 1, 2, 3)


def test_what_waits_arrives_although_the_worker_is_killed(busy: Busy) -> None:
    def die(target: str) -> None:
        if target == "/2" and busy.ends[0].waits and busy.ends[1].waits:
            os.kill(os.getpid(), signal.SIGKILL)

    busy.turn(0)
    child = os.fork()
    if child == 0:
        try:
            busy.during = die
            busy.turn(0, 1, 2)
        finally:
            os._exit(1)
    for end in busy.ends:
        end.close()
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    for number in (0, 1):
        assert busy.clients[number].recv(len(ANSWER)) == ANSWER


def test_nothing_waits_for_bodies_that_come_in(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(body: LengthBody, data: bytes) -> None:
        busy.time.now += HOLD * 0.6

    monkeypatch.setattr(LengthBody, "feed", feed)
    for client in busy.clients[1:3]:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        assert busy.loop.wait(PATIENCE)
    busy.turn(0)
    busy.clients[0].sendall(REQUEST % 0)
    for client in busy.clients[1:3]:
        client.sendall(b"body")
    for number in (3, 4):
        busy.clients[number].sendall(REQUEST % number)
    for end in busy.ends[:5]:
        assert select.select([end], [], [], PATIENCE)[0]
    busy.seen = []
    assert busy.loop.wait(PATIENCE)
    assert busy.seen == [[0], [3], [3]]


def test_what_a_sibling_may_get_does_not_wait(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may be answered in a turn that goes on to give it away: it came in under a number that was free."""
    monkeypatch.setattr(sharing, "_preemptions", lambda: 0)
    siblings = SimpleNamespace(idle_siblings=lambda slot, now: [1])
    worker: Any = SimpleNamespace(leaving="", slot=0, loop=busy.loop, board=siblings)
    nothing: Any = None
    shares = sharing.Sharing(worker, nothing, nothing)
    waits: list[bool] = []

    def share(target: str) -> None:
        if target == "/2":
            waits.append(busy.ends[0].waits)
            shares.share([])
            waits.append(busy.ends[0].waits)

    busy.turn(0)
    busy.during = share
    busy.turn(0, 1, 2, 3)
    assert waits == [True, False]


def test_a_unix_socket_knows_no_waiting(busy: Busy) -> None:
    a, b = socket.socketpair()
    with a, b:
        end = Told(fileno=a.detach())
        with end:
            end.setblocking(False)
            connection = Connection(busy, end, ("", ""), "unix:/x", {})
            connection.adopt(b"", 0.0)
            busy.turn(0)
            b.sendall(REQUEST % 5)
            busy.ends.append(end)
            busy.clients[1].sendall(REQUEST % 1)
            busy.clients[2].sendall(REQUEST % 2)
            busy.seen = []
            busy.loop.wait(PATIENCE)
            assert busy.seen == [[], [1], [1]]
            assert b.recv(len(ANSWER)) == ANSWER
            connection.close()
