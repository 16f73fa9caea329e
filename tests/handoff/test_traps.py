"""What may go wrong when a descriptor changes hands: nothing leaks, nobody is answered twice, nobody waits for ever."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from django_prefork.scoreboard import Scoreboard
from django_prefork.worker.connection import Connection
from django_prefork.worker.handoff import Queues
from tests.faults.tools import died
from tests.handoff.clients import Kept, all_busy
from tests.harness import Server, eventually
from tests.wire.tools import needs_tool
from tests.worker.host import Host, queues_between_siblings


@pytest.fixture
def queues() -> Iterator[Queues]:
    with queues_between_siblings() as queues:
        yield queues


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    board = Scoreboard.create(4)
    hosts = Host(board, 0), Host(board, 1)
    yield hosts
    for host in hosts:
        host.loop.close()


REQUEST = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


def test_who_gave_a_connection_away_hears_of_it_no_more(hosts: tuple[Host, Host], queues: Queues) -> None:
    """The description is shared with the one who has it now, and would go on waking us."""
    giver, taker = hosts
    ours, client = socket.socketpair()
    connection = giver.welcome(ours)
    assert connection.give(queues)
    handed = queues.idle.take()
    assert handed is not None
    theirs = taker.welcome(handed.sock)
    with client:
        client.sendall(REQUEST % 1)
        assert not giver.loop.wait(0.0)
        assert taker.loop.wait(1.0)
        assert (giver.served, taker.served) == ([], ["/1"])
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        theirs.close()


def test_events_that_were_fetched_before_the_guard_acted_are_stale(hosts: tuple[Host, Host], queues: Queues) -> None:
    """Of two connections that are ready at once, the first one's request takes long, and the second is given away.

    A new connection gets its descriptor's number, and with it its event.
    """
    giver, _ = hosts
    pairs = [socket.socketpair() for _ in range(2)]
    connections = [giver.welcome(ours) for ours, _ in pairs]
    new: list[Connection] = []
    spare, client = socket.socketpair()

    def long(client: Connection, request: Any) -> bool:
        giver.served.append(request.target)
        (other,) = [connection for connection in connections if connection is not client]
        number = other.sock.fileno()
        assert other.give(queues, ready=True)
        os.dup2(spare.fileno(), number)
        new.append(giver.welcome(socket.socket(fileno=number)))
        return True

    giver.serve = long  # type: ignore[method-assign]
    for number, (_, other) in enumerate(pairs):
        other.sendall(REQUEST % number)
    assert giver.loop.wait(1.0)
    assert len(giver.served) == 1
    assert new[0].idle and new[0].sock.fileno() >= 0
    handed = queues.ready.take()
    assert handed is not None and handed.sock.recv(100).startswith(b"GET /")
    for sock in (handed.sock, spare, client, *(other for _, other in pairs)):
        sock.close()
    for connection in (*connections, *new):
        connection.close()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS, errno.EMFILE])
def test_what_the_queue_does_not_take_stays_where_it_is(
    hosts: tuple[Host, Host], queues: Queues, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, _ = hosts
    ours, client = socket.socketpair()
    connection = giver.welcome(ours)

    def send_fds(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "send_fds", send_fds)
    assert connection.give(queues) is False
    with client:
        client.sendall(REQUEST % 1)
        assert giver.loop.wait(1.0) and giver.served == ["/1"]
    connection.close()


def test_a_queue_is_full_one_day(hosts: tuple[Host, Host], queues: Queues) -> None:
    giver, _ = hosts
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    given = 0
    with ours, client:
        while queues.idle.give(ours, ("", ""), "b", b"x" * 60_000, 0.0):
            given += 1
            assert given < 100_000
        connection = giver.welcome(ours.dup())
        assert connection.give(queues) is False
        client.sendall(REQUEST % 1)
        assert giver.loop.wait(1.0) and giver.served == ["/1"]
        connection.close()
        for _ in range(given):
            handed = queues.idle.take()
            assert handed is not None
            handed.sock.close()
        assert queues.idle.take() is None


def test_a_message_without_its_descriptor_is_no_connection(queues: Queues) -> None:
    """As it comes from another format, or to a process that has no descriptor free: it is dropped, and the next one is
    read."""
    ours, client = socket.socketpair()
    with ours, client:
        os.write(queues.ready.writer, b"\xff from another time")
        queues.ready.kick()
        assert queues.ready.give(ours, ("192.0.2.7", "80"), "b", b"read already", 5.0)
        handed = queues.ready.take()
        assert handed is not None
        assert (handed.peer, handed.bind, handed.data, handed.since) == (("192.0.2.7", "80"), "b", b"read already", 5.0)
        handed.sock.close()


@needs_tool("prlimit")
def test_a_worker_at_its_descriptor_limit_leaves_the_queue_to_others() -> None:
    """One that took a message with no descriptor free would lose the connection."""
    prefix = ("prlimit", "--nofile=80:80")  # 18 are the worker's own, and of 32 the queues must leave what is left
    with Server("--workers", "1", application="work", prefix=prefix).ready() as server:
        (first,) = server.full_strength(1)
        kept = [Kept(server) for _ in range(40)]
        assert {one.get("/pid")["pid"] for one in kept} == {first}
        server.kill(signal.SIGTTIN)
        server.full_strength(2)
        # Each takes up to 48 from the queues: not all of them.
        while len(kept) < 58:
            kept.append(Kept(server))
            kept[-1].get("/pid")
        for times in range(1, 4):
            kept[0].send("/sleep?s=0.2")
            server.wait_for("sleeping", times=times)
            for one in kept[1:]:
                one.send("/pid")
            for one in kept:
                one.read()


def test_what_waits_in_the_queue_is_answered_when_the_server_stops() -> None:
    """Closing a queue would reset what is inside: the last worker empties it."""
    with all_busy(0.8) as (server, kept, blockers):
        for number, one in enumerate(kept):
            one.send(f"/pid?id={number}")
        new = [Kept(server) for _ in range(5)]
        for one in new:
            one.send("/pid?id=new")
        server.kill(signal.SIGTERM)
        assert [one.read()["id"] for one in kept] == [str(number) for number in range(10)]
        assert {one.read()["id"] for one in new} == {"new"}
        for one in blockers:
            one.read()
        assert server.wait() == 0


def test_a_thousand_idle_connections_outlive_their_worker() -> None:
    """More than the queue takes at once: it is fed as it empties."""
    with Server("--workers", "1", application="work").ready() as server:
        (first,) = server.full_strength(1)
        kept = [Kept(server) for _ in range(1000)]
        assert kept[-1].get("/pid")["pid"] == first
        server.kill(signal.SIGHUP)
        server.wait_for("arbiter gen=1 leaves: retired")
        (second,) = server.full_strength(1, generation=2)
        assert {one.get("/pid")["pid"] for one in kept} == {second}
        for one in kept:
            one.close()


def test_a_sibling_that_dies_with_a_message_in_hand_costs_that_connection_and_no_other() -> None:
    with all_busy(2, errors="SIGKILL") as (server, kept, blockers):
        for one in kept:
            one.send("/pid")
        # All of them wait in the queue now, or are about to: the death of one worker leaves them to the other.
        pids = server.workers()
        eventually(lambda: all(not at_home(pid, kept) for pid in pids), "they have been given away")
        (lost,), (other,) = (at_home(pid, blockers) for pid in pids)
        server.kill(signal.SIGKILL, pids[0])
        for one in kept:
            assert one.read()["pid"] != pids[0]
        assert died(lost.sock)
        assert other.read()["pid"] == pids[1]


def at_home(pid: int, clients: list[Kept]) -> list[Kept]:
    """Those of the clients whose connections a process holds."""
    held = {connection.raddr.port for connection in psutil.Process(pid).net_connections() if connection.raddr}
    return [one for one in clients if one.sock.getsockname()[1] in held]
