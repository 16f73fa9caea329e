"""What goes wrong: in the application, in close(), at the client. And start_response and write, which allow for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.wire import Log, Result, Wire, answering, assert_own_500, read_back, serve

pytestmark = pytest.mark.usefixtures("log")

LENGTH_5 = ("Content-Length", "5")
BAD = "\r\nX-Injected: evil"


class Failure(Exception):
    pass


def fails_before_start(environ: dict[str, Any], start_response: Any) -> Any:
    raise Failure


def fails_after_start(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [("X-First", "x")])
    raise Failure


@pytest.mark.parametrize(
    "application",
    [
        fails_before_start,
        fails_after_start,
        answering(lambda: Result([], Failure())),
        answering(lambda: Result([b"", b""], Failure())),
        answering(None),
        answering(5),
        answering([None]),
        answering([5]),
        answering(["secret text"]),
        answering(["secret", "text"]),
        answering(lambda: iter(["secret"])),
        answering([], write=["secret"]),  # type: ignore[list-item]
        lambda environ, start_response: [b"without start_response"],
        lambda environ, start_response: [],
        lambda environ, start_response: iter([b"x"]),
        lambda environ, start_response: None,
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("http11", [True, False])
def test_a_failure_before_the_head_is_sent_is_500(application: Any, method: str, http11: bool, log: Log) -> None:
    answered = serve(application, method=method, http11=http11)
    if method == "GET":
        assert_own_500(answered, log)
    else:
        assert answered.status == 500 and answered.closes and answered.behind == b""
        assert answered.wire.data.endswith(b"\r\n\r\n")
    assert len(log.errors) == 1
    assert log.errors[0].endswith(f"{method} /path")


@pytest.mark.parametrize("headers", [(), (("Content-Length", "100"),)])
@pytest.mark.parametrize(
    "result", [lambda: Result([b"one", b"two"], Failure()), lambda: Result([b"one", b"two", "three"])]
)
def test_a_failure_after_the_head_closes_without_a_last_chunk(result: Any, headers: tuple[Any, ...], log: Log) -> None:
    answered = serve(answering(result, *headers))
    assert (answered.status, answered.body) == (200, b"onetwo")
    assert not answered.complete, "the client can see that something is missing"
    assert answered.closes
    assert answered.wire.data.count(b"HTTP/1.1 ") == 1
    assert len(log.errors) == 1


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException()])
@pytest.mark.parametrize("pieces", [[], [b"one", b"two"]])
def test_what_is_no_exception_is_answered_and_raised_again(
    failure: BaseException, pieces: list[bytes], log: Log
) -> None:
    result = Result(pieces, failure)
    wire = Wire()
    with pytest.raises(type(failure)):
        serve(answering(result), wire=wire)
    status, _, body, complete, _ = read_back(wire.data, "GET")
    assert (status, body, complete) == (
        (200, b"onetwo", False) if pieces else (500, b"500 Internal Server Error\n", True)
    )
    assert result.closed == 1
    assert len(log.errors) == 1


def test_the_log_of_a_failure_has_the_traceback_and_no_raw_path(log: Log) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = "/a\r\nforged line\x1b[31m\xe9"
        raise Failure("the reason")

    serve(application)
    (line,) = log.errors
    assert line == r"the application failed: GET /a\r\nforged line\x1b[31m\xe9"
    assert "Traceback" in log.text and "the reason" in log.text


def test_an_environ_that_the_application_has_spoilt_does_not_hide_its_failure(log: Log) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = None
        del environ["REQUEST_METHOD"]
        raise Failure

    assert_own_500(serve(application), log)


# -- start_response and write ------------------------------------------------------------------------------------------


def test_start_response_twice_is_an_error(log: Log) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return [b"hello"]

    assert_own_500(serve(application), log)


@pytest.mark.parametrize("keyword", [False, True])
@pytest.mark.parametrize("touched", [False, True])
def test_start_response_may_replace_a_head_that_is_not_sent(keyword: bool, touched: bool) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", [("X-First", "x"), ("Content-Length", "100"), ("Connection", "x")])
        if touched:
            with pytest.raises(Exception, match="bytes"):
                write("text")
        try:
            raise Failure
        except Failure:
            if keyword:
                start_response("500 Oops", [("X-Second", "y")], exc_info=sys.exc_info())
            else:
                start_response("500 Oops", [("X-Second", "y")], sys.exc_info())
        yield b"sorry"
        yield b"!"

    answered = serve(application)
    assert (answered.status, answered.body, answered["x-second"], answered["x-first"]) == (500, b"sorry!", "y", None)
    assert answered["transfer-encoding"] == "chunked" and answered["content-length"] is None
    assert not answered.closes


def test_start_response_raises_what_it_is_given_when_the_head_is_sent(log: Log) -> None:
    raised = []

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        try:
            raise Failure
        except Failure as failure:
            try:
                start_response("500 Oops", [], sys.exc_info())
            except Failure as again:
                raised.append(again is failure)
                raise

    answered = serve(application)
    assert raised == [True]
    assert (answered.status, answered.body, answered.complete, answered.closes) == (200, b"one", False, True)
    assert len(log.errors) == 1


@pytest.mark.parametrize(
    ("written", "result", "headers", "body"),
    [
        ([b"one"], [], (), b"one"),
        ([b"one", b"two"], [b"three"], (), b"onetwothree"),
        ([b"", b"one", b""], [b""], (), b"one"),
        ([b"one"], [b"two", b"three"], (), b"onetwothree"),
        ([b"he"], [b"llo"], (LENGTH_5,), b"hello"),
        ([b"hello"], [], (LENGTH_5,), b"hello"),
        ([bytearray(b"he")], [memoryview(b"llo")], (LENGTH_5,), b"hello"),
        ([b""], [], (), b""),
    ],
)
def test_write(written: list[bytes], result: list[Any], headers: tuple[Any, ...], body: bytes) -> None:
    for returned in (result, iter(result), Result(result)):
        answered = serve(answering(returned, *headers, write=written))
        assert (answered.body, answered.complete, answered.behind) == (body, True, b"")
        assert not answered.closes
    head = serve(answering(result, *headers, write=written), method="HEAD")
    assert head.wire.data.endswith(b"\r\n\r\n") and head.wire.data.count(b"\r\n\r\n") == 1


def test_write_sends_at_once() -> None:
    wire = Wire()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        assert wire.sends == []
        write(b"one")
        assert wire.data.endswith(b"3\r\none\r\n")
        write(b"two")
        assert wire.data.endswith(b"3\r\ntwo\r\n")
        return []

    assert serve(application, wire=wire).body == b"onetwo"


def test_write_beyond_the_length_is_cut(log: Log) -> None:
    answered = serve(answering([b"x", b"y"], LENGTH_5, write=[b"hel", b"lo!", b"more", b"and more"]))
    assert (answered.body, answered.behind, answered.closes) == (b"hello", b"", False)
    assert len(log.errors) == 1


# -- close() -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "failure", "headers", "status", "method", "takes"),
    [
        ([], None, (), "200 OK", "GET", None),
        ([b"x"], None, (), "200 OK", "GET", None),
        ([b"x", b"y"], None, (), "200 OK", "GET", None),
        ([b"x"], None, (), "200 OK", "HEAD", None),
        ([b"x"], None, (), "304 x", "GET", None),
        ([b"x"], None, (LENGTH_5,), "200 OK", "GET", None),
        ([b"hello", b"!", b"!"], None, (LENGTH_5,), "200 OK", "GET", None),
        ([b"x"], Failure(), (), "200 OK", "GET", None),
        ([], Failure(), (), "200 OK", "GET", None),
        ([], OSError("the project's own"), (), "200 OK", "GET", None),
        (["text"], None, (), "200 OK", "GET", None),
        ([b"x"], None, (("X", BAD),), "200 OK", "GET", None),
        ([b"x"], None, (), "bad", "GET", None),
        ([b"x" * 100] * 9, None, (), "200 OK", "GET", 0),
        ([b"x" * 100] * 9, None, (), "200 OK", "GET", 500),
    ],
)
def test_close_is_called_exactly_once(
    pieces: list[Any], failure: Exception | None, headers: Any, status: str, method: str, takes: int | None, log: Log
) -> None:
    result = Result(pieces, failure)
    wire = Wire(takes)
    seen: list[bytes] = []
    result.close = lambda: seen.append(wire.data)  # type: ignore[method-assign]
    serve(answering(result, *headers, status=status), method=method, wire=wire)
    assert seen == [wire.data], "once, and behind the answer"
    assert log.errors is not None


@pytest.mark.parametrize("result_of", [lambda closes: Result([b"hello"]), lambda closes: Result([])])
def test_a_close_that_raises_is_logged_and_does_no_harm(result_of: Any, log: Log) -> None:
    result = result_of(None)
    calls = []

    def close() -> None:
        calls.append(1)
        raise Failure("of a receiver")

    result.close = close
    answered = serve(answering(result))
    assert answered.status == 200 and answered.complete and not answered.closes
    assert calls == [1]
    assert log.errors == ["close() of the response failed: GET /path"]
    assert "of a receiver" in log.text


def test_a_generator_is_closed_at_once_when_nobody_reads_on() -> None:
    for method, wire in (("HEAD", Wire()), ("GET", Wire(300))):
        events = []

        def pieces(events: list[str] = events) -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 100
            finally:
                events.append("closed")

        serve(answering(pieces()), method=method, wire=wire)
        assert events == ["closed"]


# -- a client that went away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes", [0, 150, 400])
@pytest.mark.parametrize("write", [[], [b"x" * 100] * 3])
def test_a_client_that_went_away_is_nobodys_error(takes: int, write: list[bytes], log: Log) -> None:
    result = Result([b"x" * 100] * 9)
    answered = serve(answering(result, write=write), wire=Wire(takes))
    assert answered.closes
    assert result.closed == (not write), "where write() fails, there is no result to be closed"
    assert log.of(logging.WARNING) == log.of(logging.ERROR) == []
    assert any(line.startswith("client gone") for line in log.of(logging.DEBUG))


def test_an_oserror_of_the_application_is_its_own(log: Log) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        raise BrokenPipeError("of a database")

    assert_own_500(serve(application), log)
