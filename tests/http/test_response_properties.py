"""Whatever an application does: never a second status line, never more body than announced, close() exactly once.

Read back by http.client, and judged by httplint.
"""

from __future__ import annotations

import io
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httplint
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from django_prefork.http.head import error_response
from django_prefork.http.response import FileWrapper
from tests.http.effort import tries
from tests.http.wire import Answered, Wire, read_back, serve

quick = tries(600, HealthCheck.function_scoped_fixture)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Most of what is tried here is logged, rightly."""
    logger = logging.getLogger("django_prefork")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


#: What httplint says of a status as such, right or wrong for the request: not the server's to choose, or on purpose.
OF_THE_STATUS = {"CREATED_WITHOUT_LOCATION", "STATUS_URI_TOO_LONG", "STATUS_VERSION_NOT_SUPPORTED"}


class Failure(Exception):
    pass


@dataclass
class Behaviour:
    """What an application does. `fails_at`: before that piece, if ever; `more`: declared length beyond the body's."""

    status: str
    pieces: list[bytes]
    returns: str
    declared: bool
    more: int
    fails_at: int | None
    headers: list[tuple[str, str]]
    closed: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.returns in ("file", "memory file", "one") and self.fails_at is not None:
            raise Failure
        headers = list(self.headers)
        if self.declared:
            headers.append(("Content-Length", str(self.length)))
        write = start_response(self.status, headers)
        if self.returns == "writes":
            for piece in self._pieces():
                write(piece)
            return []
        return self._result()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def length(self) -> int:
        return max(0, len(self.body) + self.more)

    def _pieces(self) -> Iterator[bytes]:
        for number, piece in enumerate(self.pieces):
            if number == self.fails_at:
                raise Failure
            yield piece
        if self.fails_at is not None and self.fails_at >= len(self.pieces):
            raise Failure

    def _result(self) -> Any:
        if self.returns == "generator":
            return _Counting(self, self._pieces())
        if self.returns == "list":
            return list(self._pieces())
        if self.returns == "one":
            return [self.body]
        file: Any = tempfile.TemporaryFile() if self.returns == "file" else io.BytesIO()  # noqa: SIM115
        file.write(self.body)
        file.seek(0)
        return FileWrapper(_ClosingFile(self, file) if self.returns == "memory file" else file)


class _Counting:
    def __init__(self, behaviour: Behaviour, pieces: Iterator[bytes]) -> None:
        self._behaviour = behaviour
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._behaviour.closed += 1


class _ClosingFile:
    def __init__(self, behaviour: Behaviour, file: io.BytesIO) -> None:
        self.read = file.read
        self._behaviour = behaviour

    def close(self) -> None:
        self._behaviour.closed += 1


behaviours = st.builds(
    Behaviour,
    status=st.sampled_from(["200 OK", "200 OK", "201 Created", "404 Not Found", "500 Oops", "204 No Content", "304 x"]),
    pieces=st.lists(
        st.sampled_from([b"", b"x", b"hello", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 300]), max_size=4
    ),
    returns=st.sampled_from(["generator", "list", "one", "writes", "file", "memory file"]),
    declared=st.booleans(),
    more=st.sampled_from([0, 0, 0, -1, 1, -5, 5]),
    fails_at=st.none() | st.integers(0, 4),
    headers=st.lists(
        st.sampled_from(
            [
                ("Content-Type", "text/plain"),
                ("Cache-Control", "no-store"),
                ("Set-Cookie", "a=1"),
                ("Connection", "keep-alive"),
                ("Transfer-Encoding", "chunked"),
                ("Keep-Alive", "timeout=5"),
                ("Trailer", "X"),
            ]
        ),
        max_size=3,
        unique=True,
    ),
)


def framed_right(behaviour: Behaviour, answered: Answered, method: str, http11: bool) -> None:
    wire = answered.wire.data
    bodyless = method == "HEAD" or answered.status in (204, 304)
    assert wire.count(b"\r\nDate: ") == wire.count(b"\r\nServer: ") == 1
    assert answered.behind == b"", "what is behind an answer the next one is read from"
    if not answered.closes:
        assert answered.complete
        assert bodyless or answered["content-length"] or answered["transfer-encoding"] == "chunked"
        assert answered["connection"] == (None if http11 else "keep-alive")
    else:
        assert not answered.complete or answered["connection"] == "close" or behaviour.fails_at is not None
    assert not (answered["content-length"] and answered["transfer-encoding"])
    assert answered["transfer-encoding"] in ((None, "chunked") if http11 else (None,))
    if bodyless:
        assert answered.body == b""
        return
    # What the application gave before it failed, if it did.
    eager = behaviour.returns in ("one", "list", "file", "memory file")
    failed = behaviour.fails_at is not None
    given = [] if failed and eager else behaviour.pieces[: behaviour.fails_at]
    overrun = behaviour.declared and sum(map(len, given)) > behaviour.length
    if failed and not any(given) and not (behaviour.returns == "writes" and given):
        assert answered.status == 500 and answered.body == b"500 Internal Server Error\n" and answered.closes
        return
    assert answered.status == int(behaviour.status[:3])
    wanted = b"".join(given)[: behaviour.length if behaviour.declared else None]
    assert answered.body == wanted == answered.body[: answered.response.sent]
    if failed and not (overrun and behaviour.returns == "generator"):
        assert answered.closes
        # Where the length is known, or chunks are, the client sees that something is missing.
        if behaviour.declared:
            assert answered.complete is (len(wanted) == behaviour.length)
        elif http11:
            assert not answered.complete
    elif not failed:
        assert answered.complete is (not behaviour.declared or len(wanted) == behaviour.length)
        assert answered.closes is (not answered.complete or answered["connection"] == "close")


@quick
@given(behaviours, st.sampled_from(["GET", "GET", "HEAD", "POST"]), st.booleans(), st.booleans())
def test_the_framing_is_right_whatever_the_application_does(
    behaviour: Behaviour, method: str, http11: bool, keep_alive: bool
) -> None:
    answered = serve(behaviour, method=method, http11=http11, keep_alive=keep_alive)
    framed_right(behaviour, answered, method, http11)
    assert keep_alive or answered.closes
    if behaviour.returns in ("generator", "memory file") and answered.status != 500:
        assert behaviour.closed == 1


@quick
@given(behaviours, st.sampled_from(["GET", "HEAD"]), st.booleans(), st.integers(0, 800))
def test_a_client_that_goes_away_has_seen_no_more_than_the_answer(
    behaviour: Behaviour, method: str, http11: bool, takes: int
) -> None:
    whole = serve(behaviour, method=method, http11=http11)
    closed, behaviour.closed = behaviour.closed, 0
    answered = serve(behaviour, method=method, http11=http11, wire=Wire(takes))
    seen = answered.wire.data
    assert _without_date(whole.wire.data).startswith(_without_date(seen)) or b"500 Internal" in seen
    if len(seen) < len(whole.wire.data) and b"500 Internal" not in seen:
        assert answered.closes
    assert behaviour.closed == closed


def _without_date(data: bytes) -> bytes:
    return b"\r\n".join(line for line in data.split(b"\r\n") if not line.startswith(b"Date: "))


@tries(150, HealthCheck.function_scoped_fixture)
@given(behaviours, st.sampled_from(["GET", "HEAD"]))
def test_httplint_finds_no_fault_in_the_answer(behaviour: Behaviour, method: str) -> None:
    behaviour.fails_at, behaviour.more = None, 0
    answered = serve(behaviour, method=method)
    assert faults(answered.wire.data, method) == []


@pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 505, 507])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_httplint_finds_no_fault_in_the_servers_own_answers(status: int, method: str) -> None:
    assert faults(error_response(status, head_only=method == "HEAD"), method) == []


def test_httplint_would_find_one() -> None:
    raw = b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
    assert faults(raw, "GET")


def faults(data: bytes, method: str) -> list[str]:
    """What httplint calls bad: of framing, of syntax, of fields that contradict each other."""
    _, _, body, complete, _ = read_back(data, method)
    request = httplint.HttpRequestLinter()
    request.process_request_topline(method.encode(), b"http://h/path", b"1.1")
    request.process_headers([(b"Host", b"h")])
    request.finish_content(True)
    linter = httplint.HttpResponseLinter(start_time=time.time())
    linter.request = request
    linter.is_head_response = method == "HEAD"
    first, *lines = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    version, status, reason = first.split(b" ", 2)
    linter.process_response_topline(version.removeprefix(b"HTTP/"), status, reason)
    linter.process_headers([(name, value) for name, _, value in (line.partition(b": ") for line in lines)])
    linter.feed_content(body)
    linter.finish_content(complete)
    return [
        str(note.summary)
        for note in linter.notes
        if note.level is httplint.levels.BAD and type(note).__name__ not in OF_THE_STATUS
    ]
