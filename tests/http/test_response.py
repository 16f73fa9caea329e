"""What an application may do, and what a client reads of it. Framing is read back by http.client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from django_prefork.http import head as head_module
from django_prefork.http.head import error_response
from django_prefork.http.response import FileWrapper
from tests.http.wire import Answered, Log, Result, Wire, answering, assert_own_500, read_back, serve

pytestmark = pytest.mark.usefixtures("log")

LENGTH_5 = ("Content-Length", "5")


def simple(answered: Answered) -> tuple[int, bytes, str | None, str | None, str | None]:
    """Status, body, Content-Length, Transfer-Encoding, Connection."""
    assert answered.behind == b""
    return (
        answered.status,
        answered.body,
        answered["content-length"],
        answered["transfer-encoding"],
        answered["connection"],
    )


# -- framing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "headers", "http11", "wanted"),
    [
        # Of what is whole, the length is known.
        ([b"hello"], (), True, (200, b"hello", "5", None, None)),
        ([b"hello"], (), False, (200, b"hello", "5", None, "keep-alive")),
        ([b"hello"], (LENGTH_5,), True, (200, b"hello", "5", None, None)),
        ([b""], (), True, (200, b"", "0", None, None)),
        ([], (), True, (200, b"", "0", None, None)),
        ([], (), False, (200, b"", "0", None, "keep-alive")),
        ((), (), True, (200, b"", "0", None, None)),
        ([b"", b""], (), True, (200, b"", "0", None, None)),
        # Of what comes in pieces it is not, unless the application says so.
        ([b"he", b"llo"], (), True, (200, b"hello", None, "chunked", None)),
        ([b"he", b"llo"], (), False, (200, b"hello", None, None, "close")),
        ([b"he", b"llo"], (LENGTH_5,), True, (200, b"hello", "5", None, None)),
        ([b"he", b"llo"], (LENGTH_5,), False, (200, b"hello", "5", None, "keep-alive")),
        ((b"hello",), (), True, (200, b"hello", None, "chunked", None)),
        # An empty chunk would be the last one.
        ([b"", b"he", b"", b"llo", b""], (), True, (200, b"hello", None, "chunked", None)),
        # PEP 3333 asks for bytes; what only resembles them does no harm.
        ([bytearray(b"hello")], (), True, (200, b"hello", "5", None, None)),
        ([memoryview(b"hello")], (), True, (200, b"hello", "5", None, None)),
        ([bytearray(b"he"), memoryview(b"llo")], (), True, (200, b"hello", None, "chunked", None)),
    ],
)
def test_the_framing_of_a_body(result: Any, headers: tuple[Any, ...], http11: bool, wanted: tuple[Any, ...]) -> None:
    fields = () if http11 else (b"Connection: keep-alive",)
    answered = serve(answering(result, *headers), *fields, http11=http11)
    assert simple(answered) == wanted
    assert answered.complete
    assert answered.closes is (wanted[-1] == "close")
    assert answered.response.sent == len(answered.body)
    assert answered.response.status == 200


@pytest.mark.parametrize("http11", [True, False])
@pytest.mark.parametrize("result", [[b"hello"], [b"he", b"llo"], []])
def test_a_connection_that_will_close_says_so(result: list[bytes], http11: bool) -> None:
    answered = serve(answering(result), http11=http11, keep_alive=False)
    assert answered["connection"] == "close"
    assert answered.closes


def test_head_and_body_go_out_in_one_send() -> None:
    for result, headers in (([b"hello"], ()), ([b"hello"], (LENGTH_5,)), ([], ()), (iter([b"hello"]), (LENGTH_5,))):
        assert len(serve(answering(result, *headers)).wire.sends) == 1
    assert len(serve(answering([b"x" * 200_000])).wire.sends) == 1


def test_pieces_go_out_as_they_are_made_and_each_is_progress() -> None:
    wire = Wire()
    seen = []

    def pieces() -> Iterator[bytes]:
        seen.append(len(wire.sends))
        yield b"one"
        seen.append(len(wire.sends))
        yield b""
        yield b"two"
        seen.append(len(wire.sends))

    answered = serve(answering(pieces), wire=wire)
    assert answered.body == b"onetwo"
    assert seen == [0, 1, 2]
    assert wire.pieces == 2


@pytest.mark.parametrize("http11", [True, False])
@pytest.mark.parametrize("result", [[b"hello"], [b"he", b"llo"], [b""], [], None])
@pytest.mark.parametrize("headers", [(), (LENGTH_5,)])
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("HEAD", "404 Not Found"), ("GET", "204 No Content"), ("GET", "304 x")]
)
def test_what_has_no_body_has_none_whatever_the_application_returns(
    result: Any, headers: tuple[Any, ...], http11: bool, method: str, status: str
) -> None:
    fields = () if http11 else (b"Connection: keep-alive",)
    returned = Result([b"hello"] * 3) if result is None else result
    answered = serve(answering(returned, *headers, status=status), *fields, method=method, http11=http11)
    assert answered.status == int(status[:3])
    assert answered.wire.data.endswith(b"\r\n\r\n")
    assert answered.wire.data.count(b"\r\n\r\n") == 1
    assert not answered.closes, "the connection serves on"
    assert answered.response.sent == 0
    if status.startswith("204"):
        assert answered["content-length"] is None and answered["transfer-encoding"] is None
    if method == "HEAD" and headers:
        assert answered["content-length"] == "5"
    if isinstance(returned, Result):
        assert returned.taken <= 1, "nobody is there for more of it"
        assert returned.closed == 1


def test_head_tells_the_length_that_get_would() -> None:
    for result, headers in (
        ([b"hello"], ()),
        ([b"hello"], (LENGTH_5,)),
        ([b"he", b"llo"], (LENGTH_5,)),
        ([], (LENGTH_5,)),
    ):
        assert serve(answering(result, *headers), method="HEAD")["content-length"] == "5"


@pytest.mark.parametrize(
    "result",
    [[b"hello!"], [b"hello", b"!"], [b"he", b"llo and", b" more"], [b"hell", b"o!", b"", b"x"]],
)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_more_body_than_announced_is_cut_and_logged(result: list[bytes], keep_alive: bool, log: Log) -> None:
    answered = serve(answering(result, LENGTH_5), keep_alive=keep_alive)
    assert (answered.body, answered.behind, answered["content-length"]) == (b"hello", b"", "5")
    assert answered.closes is not keep_alive
    assert answered.response.sent == 5
    assert log.errors == ["response body longer than its Content-Length of 5: cut"]


def test_a_body_without_end_ends_where_it_was_announced_to(log: Log) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"abc"

    answered = serve(answering(endless, LENGTH_5))
    assert answered.body == b"abcab"
    assert taken == 2
    assert len(log.errors) == 1


@pytest.mark.parametrize("result", [[b"hell"], [b"he", b"ll"], [b""], [], [b"", b"hell"], (b"h",)])
def test_less_body_than_announced_closes_so_that_the_client_can_see_it(result: Any, log: Log) -> None:
    answered = serve(answering(result, LENGTH_5))
    assert answered["content-length"] == "5"
    assert not answered.complete
    assert answered.closes
    assert log.errors == ["response body shorter than its Content-Length of 5: connection closed"]


# -- the head ----------------------------------------------------------------------------------------------------------


def test_date_and_server_come_always_and_once() -> None:
    for result in ([b"x"], [b"x", b"y"], []):
        answered = serve(answering(result))
        assert answered["server"] == "django-prefork"
        assert answered["date"]


@pytest.mark.parametrize("name", ["Server", "server", "Date", "DATE"])
def test_the_project_may_set_server_and_date(name: str) -> None:
    for headers in (((name, "mine"),), ((name, "mine"), (name.swapcase(), "again"))):
        answered = serve(answering([b"x"], *headers))
        assert answered[name.lower()] == "mine"
        assert answered["date"] and answered["server"]
        assert answered.wire.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert serve(answering([b"x"]))[name.lower()] != "mine"


def test_the_date_is_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000_000.25, 50.0]
    monkeypatch.setattr(head_module.time, "time", lambda: now[0])
    monkeypatch.setattr(head_module.time, "monotonic", lambda: now[1])
    monkeypatch.setattr(head_module, "_beginnings_until", 0.0)
    dates = []
    for step in (0.0, 0.5, 0.5, -100.0, 1.0):
        now[0] += step
        now[1] += abs(step)
        dates.append(serve(answering([b"x"]))["date"])
    monkeypatch.undo()
    head_module._beginnings_until = 0.0
    assert dates == [
        "Sun, 09 Sep 2001 01:46:40 GMT",
        "Sun, 09 Sep 2001 01:46:40 GMT",
        "Sun, 09 Sep 2001 01:46:41 GMT",
        "Sun, 09 Sep 2001 01:45:01 GMT",
        "Sun, 09 Sep 2001 01:45:02 GMT",
    ]


def test_headers_keep_their_order_and_repetitions() -> None:
    headers = [
        ("X-B", "1"),
        ("Set-Cookie", "a=1"),
        ("X-A", "2"),
        ("Set-Cookie", "b=2"),
        ("X-Empty", ""),
        ("X-Tab", "a\tb"),
    ]
    answered = serve(answering([b"x"], *headers))
    assert [(k, v) for k, v in answered.headers if k.startswith(("x-", "set-"))] == [(k.lower(), v) for k, v in headers]


def test_what_is_remembered_of_headers_is_bounded() -> None:
    for number in range(2000):
        headers = [("X-Number", str(number)), ("X-Long", f"{number} " + "x" * 1000)]
        answered = serve(answering([b"x"], *headers, status=f"200 {number}"))
        assert answered["x-number"] == str(number)
    assert 0 < len(head_module.field_lines) <= head_module._CACHED
    assert 0 < len(head_module._beginnings) <= head_module._CACHED
    assert not any(len(value) > 200 for _, value in head_module.field_lines)


def test_obs_text_goes_out_as_latin_1() -> None:
    answered = serve(answering([b"x"], ("X-A", "caf\xe9"), status="200 Tr\xe8s bien"))
    assert b"X-A: caf\xe9\r\n" in answered.wire.data
    assert answered.wire.data.startswith(b"HTTP/1.1 200 Tr\xe8s bien\r\n")


@pytest.mark.parametrize(
    ("status", "line"),
    [("200", b"HTTP/1.1 200 \r\n"), ("299 ", b"HTTP/1.1 299 \r\n"), ("999 x", b"HTTP/1.1 999 x\r\n")],
)
def test_a_status_without_a_reason_still_has_its_space(status: str, line: bytes) -> None:
    """RFC 9112 section 4: status-line = HTTP-version SP status-code SP [ reason-phrase ]"""
    assert serve(answering([b"x"], status=status)).wire.data.startswith(line)


BAD = "\r\nX-Injected: evil"
CONTROLS = [chr(number) for number in (*range(0x20), 0x7F) if number != 9]


@pytest.mark.parametrize(
    "status",
    [
        *(f"200 a{control}b" for control in CONTROLS),
        "200 OK" + BAD,
        "200\r\n",
        "200 \u20ac",
        "",
        "OK",
        "200OK",
        "2000 x",
        "20 x",
        "099 x",
        " 200 OK",
        "+200 OK",
        "\u0662\u0660\u0660 OK",
        "100 Continue",
        "101 Switching Protocols",
        "199 x",
        b"200 OK",
        None,
        200,
    ],
)  # fmt: skip
def test_a_bad_status_is_500_and_nothing_of_it_on_the_wire(status: Any, log: Log) -> None:
    answered = serve(answering([b"secret body"], status=status))
    assert_own_500(answered, log)


@pytest.mark.parametrize(
    "name",
    [
        *(f"X{control}Y" for control in CONTROLS),
        "",
        " ",
        "X Y",
        "X:",
        "X\tY",
        "(X)",
        "X\xe9",
        "X" + BAD,
        "\u20ac",
        b"X",
        None,
        5,
    ],
)
def test_a_bad_header_name_is_500(name: Any, log: Log) -> None:
    answered = serve(answering([b"secret body"], ("X-First", "x"), (name, "evil value")))
    assert_own_500(answered, log)
    assert "evil" not in log.text


@pytest.mark.parametrize(
    "value",
    [*(f"a{control}b" for control in CONTROLS), BAD, "evil\r\n", "\nevil", "\u20ac evil", b"evil", None, 5, ["evil"]],
)
@pytest.mark.parametrize(
    "name", ["X-A", "Location", "Content-Type", "Set-Cookie", "Server", "Connection", "Keep-Alive"]
)
def test_a_bad_header_value_is_500_and_the_log_names_it_without_the_value(name: str, value: Any, log: Log) -> None:
    for _ in range(2):  # the second time it would come from the cache
        answered = serve(answering([b"secret body"], (name, value)))
        assert_own_500(answered, log)
    assert "evil" not in log.text
    if not isinstance(value, list):
        assert all(name in line for line in log.errors)


@pytest.mark.parametrize("value", ["", "x", "-5", "+5", "5.0", "5_0", "0x5", " 5", "5 ", "5, 5", "\xb2", "9" * 30])
def test_a_malformed_content_length_of_the_application_is_500(value: str, log: Log) -> None:
    assert_own_500(serve(answering([b"hello"], ("Content-Length", value))), log)


@pytest.mark.parametrize(
    "name",
    ["Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Proxy-Authenticate",
     "Proxy-Authorization", "Proxy-Connection", "Proxy-Anything"],
)  # fmt: skip
def test_what_is_hop_by_hop_is_dropped_with_one_warning(name: str, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "_warned", set())
    for spelled in (name, name.lower(), name.upper()):
        answered = serve(answering([b"hello"], (spelled, "x-of-the-application")))
        assert b"x-of-the-application" not in answered.wire.data
        assert answered.body == b"hello" and not answered.closes
    warnings = [line for line in log.of(logging.WARNING) if name.lower() in line]
    assert len(warnings) == (0 if name == "Connection" else 1)


def test_an_application_that_chunks_by_itself_does_not_break_the_framing() -> None:
    headers = (("Transfer-Encoding", "chunked"),)
    answered = serve(answering([b"5\r\nhello\r\n", b"0\r\n\r\n"], *headers))
    assert answered.body == b"5\r\nhello\r\n0\r\n\r\n"
    assert answered["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("value", ["close", "Close", "x, close"])
def test_an_application_may_wish_to_close(value: str) -> None:
    for result in ([b"hello"], [b"he", b"llo"], []):
        answered = serve(answering(result, ("Connection", value)))
        assert answered["connection"] == "close"
        assert answered.closes


# -- the server's own answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 505, 507])
def test_an_answer_of_the_servers_own(status: int) -> None:
    for head_only in (False, True):
        data = error_response(status, head_only=head_only)
        got, headers, body, complete, behind = read_back(data, "HEAD" if head_only else "GET")
        named = dict(headers)
        assert (got, complete, behind) == (status, True, b"")
        assert len(named) == len(headers)
        assert body == (b"" if head_only else f"{status} {HTTPStatus(status).phrase}\n".encode())
        assert named["connection"] == "close" and named["date"] and named["server"]
        assert named["content-length"] == str(len(f"{status} {HTTPStatus(status).phrase}\n"))
        assert ("retry-after" in named) is (status == 503)


def test_a_file_wrapper_is_an_iterator_for_everyone_else() -> None:
    result = Result([b"he", b"llo", b""])
    wrapper = FileWrapper(_Reads(result), 2)  # type: ignore[arg-type]
    assert list(wrapper) == [b"he", b"llo"]
    wrapper.close()
    assert result.closed == 1


class _Reads:
    def __init__(self, result: Result) -> None:
        self.read = lambda size: next(result)
        self.close = result.close
