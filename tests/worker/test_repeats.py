"""A client that has sent the same fields before is understood as one that has not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from django_prefork.http.repeats import TRIES
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker.connection import Connection
from tests.harness import Server, eventually
from tests.http import judge
from tests.http.cases import CASES
from tests.http.effort import tries
from tests.http.strategies import garbled, streams
from tests.worker.host import Host

quick = tries(250, HealthCheck.data_too_large)
board = Scoreboard.create(1)

HEAD = b"GET /%d HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nCookie: a=b\r\n\r\n"


class Witness(Host):
    """Notes what of a request is to be seen, and leaves nothing of its environ as it was."""

    def __init__(self) -> None:
        super().__init__(board, 0)
        self.seen: list[Any] = []

    def serve(self, client: Connection, request: Any) -> bool:
        environ = request.fields
        body = environ.pop("wsgi.input").read()
        what = (request.line, request.method, request.target, request.http11, request.keep_alive)
        self.seen.append((*what, dict(environ), body))
        environ.clear()
        environ["HTTP_HOST"] = "of the request before"
        super().serve(client, request)
        return bool(request.keep_alive)

    def refused(self, connection: Any, request: Any, error: Any) -> None:
        self.seen.append(error.status)

    def turn(self) -> list[Any]:
        """What was seen in a turn of the loop, and in what it left for the next."""
        self.seen.clear()
        self.loop.wait(0.0)
        while self.later:
            self.later.popleft().next()
        return self.seen.copy()


@contextlib.contextmanager
def connected() -> Iterator[tuple[Witness, Connection, socket.socket]]:
    host = Witness()
    ours, client = socket.socketpair()
    with client:
        connection = host.welcome(ours)
        yield host, connection, client
        connection.close()
    host.loop.close()


def understood(raw: bytes, before: list[bytes]) -> list[Any] | None:
    """What becomes of `raw` behind the requests `before`; None if those do not leave the connection as it was."""
    with connected() as (host, connection, client):
        for each in before:
            client.sendall(each)
            host.turn()
            if not connection.idle or not host.served:
                return None
        client.sendall(raw)
        return host.turn()


def is_understood_the_same(raw: bytes) -> int:
    """Whatever was sent before with the same fields; returns how often there was something to compare."""
    first, newline, fields = raw.partition(b"\n")
    alone = understood(raw, [])
    compared = 0
    for line in (first, b"GET /before HTTP/1.1\r", b"GET /before HTTP/1.0\r", b"GET http://other/ HTTP/1.1\r"):
        for count in (2, 3):
            after = understood(raw, [line + newline + fields] * count)
            if after is not None:
                assert after == alone, (line, count)
                compared += 1
    return compared


def test_all_cases_are_understood_the_same() -> None:
    cases = [case.raw for case in (*CASES, *judge.corpus()) if case.raw and len(case.raw) < 65_536]
    assert sum(map(is_understood_the_same, cases)) > len(cases)


@quick
@given(streams().map(lambda built: b"".join(each.raw for each in built)) | garbled())
def test_what_is_well_formed_or_was_once_is_understood_the_same(raw: bytes) -> None:
    is_understood_the_same(raw)


@quick
@given(st.lists(st.sampled_from(range(12)), max_size=12))
def test_requests_of_all_kinds_in_any_order_are_understood_the_same(order: list[int]) -> None:
    fields = b"\r\nHost: h\r\nAccept: */*\r\n"
    kinds = [
        b"GET /1 HTTP/1.1" + fields + b"\r\n",
        b"GET /2 HTTP/1.1" + fields + b"\r\n",
        b"HEAD /2?q=3 HTTP/1.1" + fields + b"\r\n",
        b"GET http://other/ HTTP/1.1" + fields + b"\r\n",
        b"OPTIONS * HTTP/1.1" + fields + b"\r\n",
        b"GET /1 HTTP/1.1\r\nX-Behind: x" + fields + b"\r\n",
        b"GET /1 HTTP/1.1" + fields + b"X-Before: x\r\n\r\n",
        b"POST /1 HTTP/1.1" + fields + b"Content-Length: 2\r\n\r\nhi",
        b"POST /1 HTTP/1.1" + fields + b"Content-Length: 0\r\n\r\n",
        b"POST /1 HTTP/1.1" + fields + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /1 HTTP/1.0" + fields + b"Connection: keep-alive\r\n\r\n",
        b"GET /1 HTTP/1.1" + fields + b"Connection: keep-alive\r\n\r\n",
    ]
    with connected() as (host, _, client):
        for kind in order:
            # A body comes after its head, as from many a client.
            head, end, body = kinds[kind].partition(b"\r\n\r\n")
            client.sendall(head + end)
            seen = host.turn()
            if body:
                client.sendall(body)
                seen += host.turn()
            assert seen == understood(kinds[kind], [])


@pytest.mark.parametrize("first", [b"GET /\x01 HTTP/1.1", b"get / HTTP/1.1", b"GET / HTTP/2.0", b"GET /%s HTTP/1.1"])
def test_a_first_line_is_judged_each_time(first: bytes) -> None:
    if b"%s" in first:
        first %= b"x" * 8190
    raw = first + (HEAD % 1).partition(b"\r")[1] + (HEAD % 1).partition(b"\r")[2]
    after = understood(raw, [HEAD % 1] * 3)
    assert after == understood(raw, []) and after is not None and len(after) == 1 and after[0] in (400, 414, 505)


def test_fields_that_repeat_are_not_judged_again() -> None:
    with connected() as (host, connection, client):
        judged = 0
        judge_all = host.parser.judge

        def counted(*arguments: Any) -> Any:
            nonlocal judged
            judged += 1
            return judge_all(*arguments)

        host.parser.judge = counted  # type: ignore[method-assign]
        for number in range(10):
            client.sendall(HEAD % number)
            assert len(host.turn()) == 1
        assert judged == 2, "once to know them, once to know that they repeat"
        connection.forget()
        client.sendall(HEAD % 10)
        assert len(host.turn()) == 1 and judged == 3, "a connection that rests remembers nothing"


def test_who_never_repeats_anything_is_not_watched() -> None:
    with connected() as (host, connection, client):
        for number in range(TRIES):
            assert connection._repeats is not None
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: %d\r\n\r\n" % number)
            assert len(host.turn()) == 1
        connection.forget()
        assert connection._repeats is None


def test_secrets_of_a_connection_that_is_kept_are_forgotten() -> None:
    with Server(application="remembered").ready() as server, server.connect() as kept:
        for _ in range(3):
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid=sesame\r\n\r\n")
            assert kept.recv(4096)
        eventually(lambda: server.get("/?sesame") == (200, b"0"), "nobody remembers it")
