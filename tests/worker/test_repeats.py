"""A client that has sent the same fields before is understood as one that has not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from django_prefork.http.repeats import MOST_FIELDS, MOST_VARIED, TRIES
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
    histories = [
        [line + newline + fields] * count
        for line in (first, b"GET /before HTTP/1.1\r", b"GET /before HTTP/1.0\r", b"GET http://other/ HTTP/1.1\r")
        for count in (2, 3)
    ]
    histories += [
        [
            (b"GET /before HTTP/1.1\r" if plain else first) + newline + other(fields, which)
            for other in (longer, another)
        ]
        for plain in (False, True)
        for which in (None, 0, 1, 2)
    ]
    compared = 0
    for history in histories:
        after = understood(raw, history)
        if after is not None:
            assert after == alone, history
            compared += 1
    return compared


# What a field that decides how a head is read must not be changed in.
FIXED = (b"host", b"connection", b"content-length", b"transfer-encoding", b"expect")


def longer(fields: bytes, which: int | None) -> bytes:
    """The same fields, and a little more in all of them, or in the one."""
    return changed(fields, which, lambda value: value + b"1")


def another(fields: bytes, which: int | None) -> bytes:
    return changed(fields, which, lambda value: b"2")


def changed(fields: bytes, which: int | None, change: Callable[[bytes], bytes]) -> bytes:
    head, end, rest = fields.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    free = [at for at, line in enumerate(lines) if line.partition(b":")[0].strip().lower() not in FIXED]
    for at in free if which is None else free[which : which + 1]:
        name, colon, value = lines[at].partition(b":")
        if colon:
            lines[at] = name + b": " + change(value.strip())
    return b"\r\n".join(lines) + end + rest


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
        counting = Counting(host)
        for number in range(10):
            client.sendall(HEAD % number)
            assert len(host.turn()) == 1
        assert counting.judged == 2, "once to know them, once to know that they repeat"
        connection.forget()
        client.sendall(HEAD % 10)
        assert len(host.turn()) == 1 and counting.judged == 3, "a connection that rests remembers nothing"


def test_who_never_repeats_anything_is_not_watched() -> None:
    with connected() as (host, connection, client):
        for number in range(TRIES):
            assert connection._repeats is not None
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-%d: x\r\n\r\n" % number)
            assert len(host.turn()) == 1
        connection.forget()
        assert connection._repeats is None


def test_who_repeats_itself_now_and_then_is_watched() -> None:
    with connected() as (host, connection, client):
        for number in range(4 * TRIES):
            fields = b"X-%d: x\r\n" % number if number % 4 == 0 else b""
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % fields)
            assert len(host.turn()) == 1
        assert connection._repeats is not None


class Counting:
    """How many heads were judged as a whole."""

    def __init__(self, host: Host) -> None:
        self.judged = 0
        self._judge = host.parser.judge
        host.parser.judge = self  # type: ignore[method-assign, assignment]

    def __call__(self, *arguments: Any) -> Any:
        self.judged += 1
        return self._judge(*arguments)


FIELDS = b"Host: h\r\nReferer: /%d\r\nAccept: */*\r\nAccept-Language: en\r\nCookie: id=%d\r\nX-Request-Id:\t%d \r\n"


def test_values_that_vary_between_fields_that_repeat_are_taken_from_there() -> None:
    with connected() as (host, _, client):
        counting = Counting(host)
        for number in (1, 22, 333, 4, 55_555):
            client.sendall(b"GET /%d HTTP/1.1\r\n" % number + FIELDS % (number, number, number) + b"\r\n")
            (seen,) = host.turn()
            environ = seen[5]
            assert seen[2] == f"/{number}" and environ["HTTP_REFERER"] == f"/{number}"
            assert environ["HTTP_COOKIE"] == f"id={number}" and environ["HTTP_X_REQUEST_ID"] == str(number)
            assert (environ["HTTP_ACCEPT"], environ["HTTP_ACCEPT_LANGUAGE"]) == ("*/*", "en")
        assert counting.judged == 2


LAST = b"GET /4 HTTP/1.1\r\n" + FIELDS % (4, 4, 4) + b"\r\n"
EDITS = [b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b"x", b"\xff", b"\r\nContent-Length: 3"]


@quick
@given(
    st.lists(st.tuples(st.integers(0, len(LAST)), st.integers(0, 2), st.sampled_from(EDITS)), min_size=1, max_size=3)
)
def test_a_head_that_is_changed_anywhere_is_read_as_what_it_is(edits: list[tuple[int, int, bytes]]) -> None:
    raw = LAST
    for at, gone, new in edits:
        raw = raw[:at] + new + raw[at + gone :]
    before = [b"GET / HTTP/1.1\r\n" + FIELDS % (number, number, number) + b"\r\n" for number in (1, 2)]
    assert understood(raw, before) == understood(raw, [])


@pytest.mark.parametrize(
    "fields",
    [
        FIELDS % (4, 4, 4) + b"Accept-Charset: x\r\n",
        (FIELDS % (4, 4, 4)).replace(b"Accept: */*\r\n", b""),
        (FIELDS % (4, 4, 4)).replace(b"Referer", b"Referrer"),
        (FIELDS % (4, 4, 4)).replace(b"Host: h", b"Host: other"),
        (FIELDS % (4, 4, 4)).replace(b"Accept: */*", b"Accept: text/html"),
        (FIELDS % (4, 4, 4)).replace(b"/4", b"/4\nAccept: text/html"),
        (FIELDS % (4, 4, 4)).replace(b"/4", b"/4\rAccept: text/html"),
        (FIELDS % (4, 4, 4)).replace(b"/4", b"/4\r\nTransfer-Encoding: chunked"),
        (FIELDS % (4, 4, 4)).replace(b"/4", b"/4\0"),
        (FIELDS % (4, 4, 4)).replace(b"id=4", b"id=4\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h"),
        (FIELDS % (4, 4, 4)).replace(b"id=4", b"\x7f"),
        (FIELDS % (4, 4, 4)).replace(b" id=4", b"id=\xe4\xf6 "),
        (FIELDS % (4, 4, 4)).replace(b" id=4", b""),
        (FIELDS % (4, 4, 4)).replace(b" id=4", b"\xa0"),
    ],
)
def test_heads_that_only_look_alike_are_read_as_what_they_are(fields: bytes) -> None:
    before = [b"GET / HTTP/1.1\r\n" + FIELDS % (number, number, number) + b"\r\n" for number in (1, 2, 3)]
    raw = b"GET / HTTP/1.1\r\n" + fields + b"\r\n"

    def all_of(history: list[bytes]) -> Any:
        with connected() as (host, _, client):
            for each in history:
                client.sendall(each)
                host.turn()
            client.sendall(raw)
            return host.turn()

    assert all_of(before) == all_of([])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"Host: a\r\n", b"Host: b\r\n"),
        (b"Host: h\r\nConnection: keep-alive\r\n", b"Host: h\r\nConnection: Keep-Alive\r\n"),
        (b"Host: h\r\nX-One: 1\r\nX-One: 2\r\n", b"Host: h\r\nX-One: 1\r\nX-One: 3\r\n"),
        (b"Host: h\r\nX_One: 1\r\n", b"Host: h\r\nX_One: 2\r\n"),
        (b"Host: h\r\nContent-Length: 0\r\n", b"Host: h\r\nContent-Length: 00\r\n"),
        (b"Host: h\r\nExpect: 100-continue\r\n", b"Host: h\r\nExpect: 100-Continue\r\n"),
        (
            b"Host: h\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(MOST_VARIED + 1)),
            b"Host: h\r\n" + b"".join(b"X-%d: 2\r\n" % number for number in range(MOST_VARIED + 1)),
        ),
        (b"Host: h\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(MOST_FIELDS)),) * 2,
    ],
)
def test_what_decides_or_is_too_much_gives_no_shape(first: bytes, second: bytes) -> None:
    with connected() as (host, connection, client):
        for fields in (first, second):
            client.sendall(b"GET / HTTP/1.1\r\n" + fields + b"\r\n")
            assert len(host.turn()) == 1 and len(host.served) >= 1
        assert connection._repeats is not None and connection._repeats.shape is None


def test_secrets_of_a_connection_that_is_kept_are_forgotten() -> None:
    with Server(application="remembered").ready() as server, server.connect() as kept:
        for _ in range(3):
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid=sesame\r\n\r\n")
            assert kept.recv(4096)
        eventually(lambda: server.get("/?sesame") == (200, b"0"), "nobody remembers it")
