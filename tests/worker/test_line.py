"""Requests of one turn that are read together, and then served: in order, once, and by whoever is free."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_prefork.http.environ import QUEUE_TIME
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker import connection as connection_module
from django_prefork.worker import handoff, sharing
from django_prefork.worker import loop as loop_module
from django_prefork.worker.connection import Connection
from django_prefork.worker.handoff import Queues
from django_prefork.worker.loop import READ, SHORT, SURPLUS, TOGETHER
from django_prefork.worker.waiting import AWAY
from tests.harness import PATIENCE
from tests.worker.host import Host, Time, queues_between_siblings

REQUEST = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Reader(Host):
    """Each request takes `seconds`, and `during` is done in each. `told`: what was read ("<n"), and served (">n")."""

    def __init__(self, time: Time) -> None:
        super().__init__(Scoreboard.create(1), 0)
        self.time = time
        self.seconds = SHORT / 10
        self.during: Callable[[Connection, str], None] = lambda client, target: None
        self.told: list[str] = []
        self.waited: dict[str, float] = {}
        self.clients: list[socket.socket] = []
        self.connections: list[Connection] = []
        judge = self.parser.judge

        def noted(*arguments: Any) -> Any:
            request = judge(*arguments)
            self.told.append(f"<{request.target[1:]}")
            return request

        self.parser.judge = noted  # type: ignore[method-assign]

    def connect(self, count: int) -> None:
        for _ in range(count):
            ours, client = socket.socketpair()
            client.settimeout(PATIENCE)
            self.clients.append(client)
            self.connections.append(self.welcome(ours))
            self.connections[-1]._repeats = None  # what it sends is judged each time

    def serve(self, client: Connection, request: Any) -> bool:
        number = request.target[1:]
        self.told.append(f">{number}")
        self.waited[number] = request.fields[QUEUE_TIME]
        self.time.now += self.seconds
        self.during(client, number)
        return super().serve(client, request)

    @property
    def ended(self) -> float:
        return self.time.now

    def send(self, *who: int) -> None:
        for number in who:
            self.clients[number].sendall(REQUEST % number)

    def turn(self, *who: int) -> str:
        """A request of each, all in one turn; returns what was told."""
        self.told.clear()
        self.send(*who)
        assert self.loop.wait(PATIENCE)
        return " ".join(self.told)

    def answered(self, *who: int) -> None:
        for number in who:
            assert self.clients[number].recv(len(ANSWER)) == ANSWER


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    time = Time()
    monkeypatch.setattr(loop_module, "time", time)
    monkeypatch.setattr(connection_module, "time", time)
    reader = Reader(time)
    reader.connect(TOGETHER + 4)
    # Behind a turn of a short one.
    assert reader.turn(0) == "<0 >0"
    reader.answered(0)
    yield reader
    for connection in reader.connections:
        connection.close()
    for client in reader.clients:
        client.close()
    reader.loop.close()


@pytest.fixture
def queues() -> Iterator[Queues]:
    with queues_between_siblings() as queues:
        yield queues


def sharing_of(reader: Reader, queues: Queues, monkeypatch: pytest.MonkeyPatch) -> sharing.Sharing:
    """With a sibling that is idle."""
    monkeypatch.setattr(sharing, "_preemptions", lambda: 0)
    worker: Any = reader
    reader.__dict__.update(
        leaving="", slot=0, board=SimpleNamespace(idle_siblings=lambda slot, now: [0]), connections=reader.connections
    )
    doors: Any = SimpleNamespace(left_over=[])
    return sharing.Sharing(worker, doors, queues)


def given(queues: Queues) -> list[bytes]:
    """What was read of each connection that is in the queue, in order."""
    found = []
    while (handed := queues.ready.take()) is not None:
        found.append(handed.data)
        handed.sock.close()
    return found


def test_requests_of_one_turn_are_read_and_then_served_in_order(reader: Reader) -> None:
    assert reader.turn(0, 1, 2) == "<0 <1 <2 >0 >1 >2"
    reader.answered(0, 1, 2)
    assert not reader.loop.line and not reader.loop.reads_ahead
    assert set(reader.waited.values()) == {0.0}, "a moment is no waiting"


def test_a_single_one_is_served_at_once(reader: Reader) -> None:
    assert reader.turn(3) == "<3 >3"


def test_no_more_are_read_at_a_time_than_stay_in_the_caches(reader: Reader) -> None:
    told = reader.turn(*range(TOGETHER + 3)).split()
    first, second = range(TOGETHER), range(TOGETHER, TOGETHER + 3)
    assert told == [f"{sign}{number}" for group in (first, second) for sign in "<>" for number in group]


def test_behind_requests_that_take_long_none_is_read_ahead(reader: Reader) -> None:
    reader.seconds = SHORT * 1.01
    assert reader.turn(0, 1) == "<0 <1 >0 >1"
    assert reader.turn(0, 1) == "<0 >0 <1 >1"
    reader.seconds = SHORT / 10
    reader.turn(0, 1)
    assert reader.turn(0, 1) == "<0 <1 >0 >1"


def test_a_first_turn_reads_nothing_ahead(reader: Reader) -> None:
    fresh = Reader(reader.time)
    fresh.connect(2)
    assert fresh.turn(0, 1) == "<0 >0 <1 >1"
    for connection, client in zip(fresh.connections, fresh.clients, strict=True):
        connection.close()
        client.close()
    fresh.loop.close()


def test_pipelined_requests_and_bodies_are_served_as_they_come_and_make_nobody_wait(reader: Reader) -> None:
    reader.clients[1].sendall(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
    reader.loop.wait(PATIENCE)
    reader.clients[1].sendall(b"body")
    reader.send(3, 4)
    reader.clients[2].sendall(REQUEST % 2 + REQUEST % 22)
    assert reader.turn(0, 5) == ">body <3 <4 <2 >2 >3 >4 <0 <5 >0 >5"
    reader.later.popleft().next()
    assert reader.told[-2:] == ["<22", ">22"]
    reader.answered(0, 1, 2, 2, 3, 4, 5)


def test_half_a_head_and_what_is_none_keep_nobody_from_being_served(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "refused", lambda *_: reader.told.append("refused"))
    reader.send(0)
    reader.clients[1].sendall(b"GET /1 HT")
    reader.clients[2].sendall(b"GET /2 HTTP/1.1\r\nHost : h\r\n\r\n")
    assert reader.turn(3) == "<0 refused <3 >0 >3"
    assert reader.clients[2].recv(100).startswith(b"HTTP/1.1 400")
    reader.clients[1].sendall(b"TP/1.1\r\nHost: h\r\n\r\n")
    assert reader.turn(4) == "<1 >1 <4 >4"
    reader.answered(0, 1, 3, 4)


def test_who_comes_over_what_is_shared_is_served_behind_those_who_were_read_before(reader: Reader) -> None:
    class Door:
        def ready(self, mask: int) -> None:
            a.recv(1)
            reader.told.append("door")

        def broken(self) -> None:
            pytest.fail("it is sound")

    a, b = socket.socketpair()
    with a, b:
        reader.loop.watch_shared(a.fileno(), Door())
        reader.send(0, 1)
        b.send(b"x")
        assert reader.turn(2, 3) == "<0 <1 >0 >1 door <2 <3 >2 >3"
        reader.loop.forget(a.fileno())


def test_a_new_connection_is_served_at_once(reader: Reader) -> None:
    """What the loop does not know yet, it could not give to a sibling."""

    class Door:
        def ready(self, mask: int) -> None:
            a.recv(1)
            ours, client = socket.socketpair()
            client.sendall(REQUEST % 99)
            reader.clients.append(client)
            reader.connections.append(reader.welcome(ours))

        def broken(self) -> None:
            pytest.fail("it is sound")

    a, b = socket.socketpair()
    with a, b:
        reader.loop.watch(a.fileno(), Door(), READ)
        reader.send(0)
        b.send(b"x")
        assert reader.turn(1) == "<0 <99 >99 >0 <1 >1"
        reader.loop.forget(a.fileno())


def test_a_mistake_costs_who_made_it_and_nobody_behind(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    def err(client: Connection, number: str) -> None:
        if number == "1":
            raise ZeroDivisionError

    reader.during = err
    assert reader.turn(0, 1, 2) == "<0 <1 <2 >0 >1 >2"
    assert "a mistake of the server's" in caplog.text
    assert reader.clients[1].recv(1) == b""
    reader.answered(0, 2)


def test_while_one_takes_long_the_guard_gives_those_in_line_to_siblings(
    reader: Reader, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = sharing_of(reader, queues, monkeypatch)

    def long(client: Connection, number: str) -> None:
        if number == "1":
            reader.send(4)
            shares.help_out()

    reader.during = long
    assert reader.turn(0, 1, 2, 3) == "<0 <1 <2 <3 >0 >1"
    reader.answered(0, 1)
    assert given(queues) == [REQUEST % 2, REQUEST % 3, b""], "with what was read of them, before who came later"
    assert reader.served == ["/0", "/0", "/1"]
    assert not reader.loop.line


def test_a_turn_that_takes_long_leaves_the_last_ones_in_line_to_siblings_that_rest(
    reader: Reader, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader.loop.surplus = sharing_of(reader, queues, monkeypatch).share
    reader.seconds = SURPLUS * 0.6
    # After two of them it has taken long; and a sibling is given four at a time.
    assert reader.turn(1, 2, 3, 4, 5, 6, 7) == "<1 <2 <3 <4 <5 <6 <7 >1 >2 >3"
    assert given(queues) == [REQUEST % number for number in (7, 6, 5, 4)]


def test_who_was_served_meanwhile_is_not_given_away(
    reader: Reader, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sibling would wait for a request that there is not, and take its time for the next one's."""
    reader.loop.surplus = sharing_of(reader, queues, monkeypatch).share
    reader.clients[1].sendall(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
    reader.loop.wait(PATIENCE)
    reader.turn(9)
    reader.seconds = SURPLUS * 1.1
    reader.send(2)
    reader.clients[1].sendall(b"body")
    assert reader.turn(3, 4) == "<2 >body"
    assert given(queues) == [b"", b"", REQUEST % 2]
    reader.answered(1)


def test_who_comes_to_stand_in_line_without_the_loop_knowing_is_served(reader: Reader) -> None:
    """A worker that is told to stop, or has no descriptor left, looks at all connections in the middle of a turn."""

    class Stop:
        def ready(self, mask: int) -> None:
            a.recv(1)
            reader.send(7, 8)  # after the loop has asked who is ready
            for connection in reader.connections[7:9]:
                assert connection.receive()

        def broken(self) -> None:
            pytest.fail("it is sound")

    given_away: list[list[int]] = []
    reader.loop.surplus = given_away.append
    reader.seconds = SURPLUS * 1.1
    a, b = socket.socketpair()
    with a, b:
        reader.loop.watch(a.fileno(), Stop(), READ)
        reader.send(0)
        b.send(b"x")
        reader.told.clear()
        assert reader.loop.wait(PATIENCE)
        assert reader.told == ["<0", "<7", "<8", ">0", ">7", ">8"]
        descriptors = [connection.sock.fileno() for connection in reader.connections]
        assert given_away == [[descriptors[8], descriptors[7]], [descriptors[8]]]
        reader.loop.forget(a.fileno())
    reader.answered(0, 7, 8)


def test_a_sibling_hears_how_long_who_stands_in_line_has_waited(
    reader: Reader, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = sharing_of(reader, queues, monkeypatch)
    reader.connections[1]._waited = 2.0
    reader.during = lambda client, number: shares.help_out()
    came = reader.time.now
    assert reader.turn(0, 1) == "<0 <1 >0"
    handed = queues.ready.take()
    assert handed is not None and handed.since == came - 2.0
    handed.sock.close()


def test_who_comes_from_a_sibling_without_a_request_has_not_waited(reader: Reader) -> None:
    ours, client = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(reader, ours, ("127.0.0.1", "1"), "127.0.0.1:80", reader.connections[0].template)
    connection.adopt(b"", reader.time.now - 3.0)
    reader.clients.append(client)
    reader.connections.append(connection)
    reader.turn(len(reader.clients) - 1)
    assert reader.waited[str(len(reader.clients) - 1)] == 0.0


def test_who_stands_in_line_though_it_was_to_be_given_away_is_served_here(
    reader: Reader, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = sharing_of(reader, queues, monkeypatch)
    monkeypatch.setattr(handoff.Queue, "give", lambda *_: False)  # it has no room
    reader.during = lambda client, number: shares.help_out()
    assert reader.turn(0, 1, 2) == "<0 <1 <2 >0 >1 >2"
    reader.answered(0, 1, 2)
    assert reader.turn(0, 1) == "<0 <1 >0 >1", "and the loop goes on to hear of it"


def test_who_stood_in_line_for_long_has_waited_for_as_long(reader: Reader) -> None:
    def long(client: Connection, number: str) -> None:
        reader.time.now += 3.0 if number == "0" else 0.0

    reader.during = long
    reader.turn(0, 1)
    assert reader.waited["1"] == pytest.approx(3.0 + reader.seconds)
    assert reader.waited["0"] == 0.0


def test_who_has_gone_meanwhile_is_not_served(reader: Reader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    connection = reader.welcome(ours)
    reader.clients.append(client)
    reader.connections.append(connection)

    def leave(who: Connection, number: str) -> None:
        # With a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        reader.time.now += AWAY * 1.01

    reader.during = leave
    last = len(reader.clients) - 1
    assert reader.turn(0, last) == f"<0 <{last} >0"
    assert connection.sock.fileno() == -1
    reader.answered(0)
