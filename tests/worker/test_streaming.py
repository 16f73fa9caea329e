"""Streams: what comes fast travels together, and nothing waits for what comes late."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_prefork.http.response import Response
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker import streaming
from django_prefork.worker.connection import Connection
from django_prefork.worker.streaming import Courier, Parts, Stream, without
from tests.harness import PATIENCE
from tests.worker.host import Host

Pieces = Callable[[], Iterator[bytes]]


class Socket(socket.socket):
    """Counts what is asked of it."""

    sends = 0

    def sendmsg(self, *arguments: Any) -> int:
        self.sends += 1
        return super().sendmsg(*arguments)


class Streaming(Host):
    """Answers each request with the next of `answers`."""

    def __init__(self, *answers: Pieces, length: int | None = None) -> None:
        super().__init__(Scoreboard.create(1), 0)
        self.answers = list(answers)
        self.headers = [("Content-Length", str(length))] if length is not None else []
        self.progress = 0

    def serve(self, client: Connection, request: Any) -> bool:
        pieces = self.answers.pop(0)

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
            start_response("200 OK", self.headers)
            return pieces()

        response = Response(request, client, True)
        response.run(application, request.fields)
        return response.keep_alive

    def progressed(self) -> None:
        self.progress += 1


@contextmanager
def asked(host: Streaming, small: bool = False) -> Iterator[tuple[Socket, socket.socket]]:
    """The server's end of a connection that has sent a request, and the client's."""
    one, client = socket.socketpair()
    ours = Socket(fileno=one.detach())
    if small:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.settimeout(PATIENCE)
    with client, ours:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        yield ours, client


def body_of(client: socket.socket, received: bytes = b"") -> bytes:
    """Of a chunked answer, of which `received` has come already; says so where its end is missing."""
    answer = bytearray(received)
    while not answer.endswith(b"\r\n0\r\n\r\n") and (data := client.recv(65536)):
        answer += data
    chunks = bytes(answer).partition(b"\r\n\r\n")[2]
    body = []
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        if not (count := int(size, 16)):
            assert chunks == b"\r\n"
            return b"".join(body)
        assert chunks[count : count + 2] == b"\r\n"
        body.append(chunks[:count])
        chunks = chunks[count + 2 :]
    return b"".join(body) + b"(unfinished)"


@contextmanager
def reader(read: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """`read` in a thread of its own; gives what tells its result."""
    results: list[bytes] = []
    thread = threading.Thread(target=lambda: results.append(read()))
    thread.start()

    def result() -> bytes:
        thread.join(PATIENCE)
        assert results, "the client got no whole answer"
        return results[0]

    try:
        yield result
    finally:
        thread.join(PATIENCE)


def has_come(client: socket.socket, piece: bytes) -> bool:
    """Whether it is there by now."""
    try:
        return piece in client.recv(1000, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def numbered(count: int, size: int = 100) -> Iterator[bytes]:
    for number in range(count):
        yield b"%*d" % (size, number)


def finish(host: Streaming) -> None:
    """Send what is left, as the worker's loop does."""
    until = time.monotonic() + PATIENCE
    while host.loop.wait(0.05):
        assert time.monotonic() < until


def test_pieces_that_come_fast_travel_together() -> None:
    received = bytearray()

    def read() -> bytes:
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received.extend(client.recv(65536))
        return body_of(client, received)

    host = Streaming(lambda: numbered(5000, 1000))
    with asked(host) as (ours, client), reader(read) as result:
        connection = host.welcome(ours)
        finish(host)
        assert result() == b"".join(numbered(5000, 1000))
        assert ours.sends < 1000, "5000 pieces"
        assert host.row.sent == len(received)
        connection.close()
    host.loop.close()


@pytest.mark.parametrize("length", [None, 2000])
def test_pieces_that_come_one_by_one_are_there_at_once(length: int | None) -> None:
    late = []

    def pieces() -> Iterator[bytes]:
        for piece in numbered(20):
            yield piece
            late.append(not has_come(client, piece))
            time.sleep(2 * streaming.FAST_SECONDS)

    host = Streaming(pieces, length=length)
    with asked(host) as (ours, client):
        connection = host.welcome(ours)
        assert late == [False] * 20
        assert host.progress >= 20, "each renews the time limit"
        connection.close()
    host.loop.close()


@pytest.mark.parametrize(
    ("count", "size"),
    [
        pytest.param(50, 100, id="small ones"),
        pytest.param(3000, 1000, id="more than the system holds"),
    ],
)
def test_what_is_there_arrives_while_the_application_waits_for_more(count: int, size: int) -> None:
    """It waits here until the client has it all: nobody would ever go on otherwise."""
    arrived = threading.Event()
    was_in_time = []

    def pieces() -> Iterator[bytes]:
        yield from numbered(count, size)
        was_in_time.append(arrived.wait(PATIENCE))
        yield b"the last"

    def read() -> bytes:
        received = bytearray()
        while not received.endswith(b"%*d\r\n" % (size, count - 1)):
            received += client.recv(65536)
        arrived.set()
        return body_of(client, received)

    host = Streaming(pieces)
    with asked(host, small=True) as (ours, client), reader(read) as result:
        connection = host.welcome(ours)
        finish(host)
        assert result() == b"".join(numbered(count, size)) + b"the last"
        assert was_in_time == [True]
        connection.close()
    host.loop.close()


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_doubled_or_mixed_up(seed: int) -> None:
    """Pieces of any size, pauses of any length, a client that reads as it likes, and the courier in between."""
    chance = random.Random(seed)
    sent = []

    def pieces() -> Iterator[bytes]:
        for _ in range(1500):
            piece = chance.randbytes(chance.choice((1, 50, 1000, 20_000)))
            sent.append(piece)
            yield piece
            if chance.random() < 0.02:
                time.sleep(chance.choice((0.0001, 0.001, 0.004)))

    class Slow:
        def recv(self, count: int) -> bytes:
            if own.random() < 0.01:
                time.sleep(0.003)
            return client.recv(own.randrange(1, count))

    own = random.Random(-seed)
    host = Streaming(pieces, pieces)
    with asked(host, small=seed % 2 == 0) as (ours, client):
        client_again: Any = Slow()
        connection = host.welcome(ours)
        for number in range(2):
            if number:
                client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            with reader(lambda: body_of(client_again)) as result:
                finish(host)
                assert result() == b"".join(sent)
            sent.clear()
        connection.close()
    host.loop.close()


def test_what_came_before_a_failure_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    def pieces() -> Iterator[bytes]:
        yield from numbered(100)
        raise RuntimeError("as asked")

    host = Streaming(pieces)
    with asked(host) as (ours, client):
        host.welcome(ours)
        assert body_of(client) == b"".join(numbered(100)) + b"(unfinished)"
    assert "as asked" in caplog.text
    host.loop.close()


def test_a_client_that_goes_leaves_nothing_behind() -> None:
    """The next one may have its descriptor."""

    def pieces() -> Iterator[bytes]:
        yield from numbered(100)
        client.close()
        yield from numbered(100_000)
        pytest.fail("nobody was there to take it")

    host = Streaming(pieces, lambda: numbered(1000))
    with asked(host) as (ours, client):
        host.welcome(ours)
        finish(host)
        assert ours.fileno() == -1
    with asked(host) as (ours, client), reader(lambda: body_of(client)) as result:
        connection = host.welcome(ours)
        finish(host)
        assert result() == b"".join(numbered(1000))
        connection.close()
    host.loop.close()


def test_without_a_thread_each_piece_is_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    late = []

    def pieces() -> Iterator[bytes]:
        for piece in numbered(100):
            yield piece
            late.append(not has_come(client, piece))

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    host = Streaming(pieces)
    with asked(host) as (ours, client):
        monkeypatch.setattr(threading.Thread, "start", fail)
        connection = host.welcome(ours)
        assert late == [False] * 100
        connection.close()
    host.loop.close()


def test_a_child_of_the_application_does_not_wait_for_a_thread_that_it_has_not() -> None:
    """The courier may be sending at that moment."""

    class Way:
        behind = False

        def __init__(self) -> None:
            self.sending = threading.Event()
            self.forked = threading.Event()
            self.parts: list[bytes] = []

        def send_parts(self, parts: Parts, size: int) -> None:
            self.parts += map(bytes, parts)

        def sent(self, count: int) -> None:
            pass

        def push(self, parts: list[bytes | memoryview]) -> bool:
            self.sending.set()
            assert self.forked.wait(PATIENCE)
            self.send_parts(parts, 0)
            parts.clear()
            return True

    way, courier = Way(), Courier()
    stream = Stream(way, courier)
    for number in range(20):
        stream.add((b"%d" % number,), 1)
    assert way.sending.wait(PATIENCE)
    child = os.fork()
    if not child:
        courier.forked()
        way.parts.clear()
        stream.end(b"its own")
        os._exit(way.parts != [b"its own"])
    _, status = os.waitpid(child, 0)
    way.forked.set()
    stream.end(b"")
    assert way.parts == [b"%d" % number for number in range(20)]
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_is_left_of_parts() -> None:
    parts = [b"ab", b"", b"cde", b"f"]
    whole = b"".join(parts)
    for count in range(len(whole) + 1):
        assert b"".join(without(parts, count)) == whole[count:]
    assert without(parts, len(whole)) == []
