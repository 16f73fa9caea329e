"""The request head: limits, statuses, duplicates, Host, targets, Connection, framing. Pure, by tables."""

from __future__ import annotations

import pytest

from django_prefork.http.buffer import LIMIT_BLANK, HeadBuffer
from django_prefork.http.errors import HttpError
from django_prefork.http.parser import (
    CACHED_LINES,
    LIMIT_HEAD,
    Limits,
    RequestHead,
    RequestParser,
)
from tests.http.cases import CASES
from tests.http.cases.make import get
from tests.http.judge import Case
from tests.http.reader import Read, byte_by_byte, cut_at, whole


def parse(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: h") -> RequestHead:
    """The head of one request that must be accepted."""
    read = whole(get(*fields, line=line, host=host))
    assert read.status == 0, read.detail
    return read.requests[0].head


def status(raw: bytes, limits: Limits | None = None) -> int:
    return whole(raw, limits).status


# -- the request line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "method", "target", "path", "query", "http11"),
    [
        (b"GET / HTTP/1.1", "GET", "/", "/", "", True),
        (b"GET /a?b=c HTTP/1.0", "GET", "/a?b=c", "/a", "b=c", False),
        (b"POST /%C3%A9%2f?%C3%A9 HTTP/1.1", "POST", "/%C3%A9%2f?%C3%A9", "/Ã©/", "%C3%A9", True),
        (b"PROPFIND //x//y HTTP/1.1", "PROPFIND", "//x//y", "//x//y", "", True),
        (b"GET /?? HTTP/1.9", "GET", "/??", "/", "?", True),
        (b"OPTIONS * HTTP/1.1", "OPTIONS", "*", "*", "", True),
        (b"GET http://g:8/a?b HTTP/1.1", "GET", "http://g:8/a?b", "/a", "b", True),
        (b"GET http://g HTTP/1.1", "GET", "http://g", "/", "", True),
        (b"GET http://g?b HTTP/1.1", "GET", "http://g?b", "/", "b", True),
        (b"GET http://g/%2e%2e HTTP/1.1", "GET", "http://g/%2e%2e", "/..", "", True),
    ],
)
def test_a_request_line_is_taken_apart(
    line: bytes, method: str, target: str, path: str, query: str, http11: bool
) -> None:
    head = parse(line=line)
    assert (head.method, head.target, head.path, head.query, head.http11) == (method, target, path, query, http11)
    assert head.line == line


def test_an_absolute_target_replaces_host_but_host_must_be_there_and_right() -> None:
    assert parse(line=b"GET http://good/ HTTP/1.1", host=b"Host: other").fields["HTTP_HOST"] == "good"
    assert status(get(line=b"GET http://good/ HTTP/1.1", host=None)) == 400
    assert status(get(line=b"GET http://good/ HTTP/1.1", host=b"Host: a b")) == 400


def test_a_line_that_is_refused_is_refused_again() -> None:
    """Nothing bad may get into the caches, and nothing good may make a bad one pass."""
    parser = RequestParser(Limits())
    for _ in range(3):
        for head, expected in (
            (b"GET / HTTP/1.1\r\nHost: h\r\nX : y", 400),
            (b"GET / HTTP/3.0\r\nHost: h", 505),
            (b"GET / HTTP/1.1\r\nHost: a b", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\nX", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\nExpect: x", 417),
        ):
            with pytest.raises(HttpError) as refused:
                parser.parse(head, {})
            assert refused.value.status == expected
            assert parser.parse(b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\nContent-Length: 5", {}).length == 5


def test_the_caches_are_bounded_and_hold_no_secrets() -> None:
    parser = RequestParser(Limits())
    for number in range(3 * CACHED_LINES):
        host = b"h%d" % number
        fields = (b"X-%d: 1" % number, b"Cookie: secret", b"Authorization: secret", b"Proxy-Authorization: secret")
        parser.parse(get(*fields, line=b"GET /%d HTTP/1.1" % number, host=b"Host: " + host)[:-4], {})
    for cache in (parser._lines, parser._fields, parser._names, parser._hosts):
        assert 0 < len(cache) <= CACHED_LINES
        assert not any(b"secret" in (key if isinstance(key, bytes) else key.encode()) for key in cache)
    long = b"X-Long: " + b"x" * 8000
    parser.parse(get(long)[:-4], {})
    assert long not in parser._fields


def test_two_requests_do_not_share_their_fields() -> None:
    parser = RequestParser(Limits())
    head = get(b"X: y")[:-4]
    first = parser.parse(head, {})
    first.fields["HTTP_X"] = "changed"
    assert parser.parse(head, {}).fields["HTTP_X"] == "y"


# -- fields ------------------------------------------------------------------------------------------------------------


def test_fields_get_the_names_of_cgi() -> None:
    head = parse(b"accept: a", b"X-Long-Name: b", b"Content-Type: c", b"Content-Length: 0", b"Content-Type-X: d")
    assert head.fields == {
        "HTTP_HOST": "h",
        "HTTP_ACCEPT": "a",
        "HTTP_X_LONG_NAME": "b",
        "CONTENT_TYPE": "c",
        "CONTENT_LENGTH": "0",
        "HTTP_CONTENT_TYPE_X": "d",
    }


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        ((b"A: 1", b"A: 2"), "HTTP_A", "1, 2"),
        ((b"A: 1", b"a:2", b"A:\t3 "), "HTTP_A", "1, 2, 3"),
        ((b"A:", b"A:"), "HTTP_A", ", "),
        ((b"A: 1", b"B: x", b"A: 1"), "HTTP_A", "1, 1"),
        ((b"Cookie: a=1", b"Cookie: b=2", b"cookie: c=3"), "HTTP_COOKIE", "a=1; b=2; c=3"),
        ((b"A_B: shadow", b"A-B: honest", b"A_B: shadow"), "HTTP_A_B", "honest"),
    ],
)
def test_repeated_fields_are_joined(fields: tuple[bytes, ...], key: str, value: str) -> None:
    assert parse(*fields).fields[key] == value


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Content-Type", b"Authorization"])
def test_what_may_stand_once_is_refused_twice(name: bytes) -> None:
    host = None if name == b"Host" else b"Host: h"
    assert status(get(name + b": 1", name + b": 1", host=host)) == 400
    assert status(get(name + b": 1", name.lower() + b":", host=host)) == 400


def test_fields_that_are_dropped_leave_nothing_behind() -> None:
    head = parse(b"Proxy: x", b"proxy: y", b"A_B: z", b"_: z", b"Content_Length: 7")
    assert head.fields == {"HTTP_HOST": "h"}
    assert head.length == 0


def test_fields_never_touch_what_the_template_says() -> None:
    fields = {"REQUEST_METHOD": "?", "wsgi.input": "?", "SERVER_NAME": "?", "PATH_INFO": "?"}
    raw = get(b"Server-Name: x", b"Request-Method: x", b"wsgi.input: x", b"Path-Info: x")[:-4]
    head = RequestParser(Limits()).parse(raw, dict(fields))
    assert {key: head.fields[key] for key in fields} == fields


# -- Connection, Expect ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "with_10", "with_11"),
    [
        (None, False, True),
        (b"keep-alive", True, True),
        (b"Keep-Alive", True, True),
        (b"close", False, False),
        (b"Close", False, False),
        (b"keep-alive, close", False, False),
        (b"close, keep-alive", False, False),
        (b"upgrade,\tCLOSE ,x", False, False),
        (b"x, keep-alive", True, True),
        (b"closed", False, True),
        (b"x-close", False, True),
        (b"close x", False, True),
        (b"", False, True),
        (b",", False, True),
        (b"\xa0close", False, True),
    ],
)
def test_connection_is_a_list_of_tokens(value: bytes | None, with_10: bool, with_11: bool) -> None:
    fields = [b"Connection: " + value] if value is not None else []
    assert parse(*fields, line=b"GET / HTTP/1.0").keep_alive is with_10
    assert parse(*fields).keep_alive is with_11


@pytest.mark.parametrize(
    ("line", "fields", "expects"),
    [
        (b"POST / HTTP/1.1", (b"Content-Length: 1", b"Expect: 100-continue"), True),
        (b"POST / HTTP/1.1", (b"Content-Length: 1", b"Expect: 100-Continue"), True),
        (b"POST / HTTP/1.1", (b"Transfer-Encoding: chunked", b"Expect: 100-continue"), True),
        (b"POST / HTTP/1.1", (b"Content-Length: 0", b"Expect: 100-continue"), False),
        (b"POST / HTTP/1.1", (b"Expect: 100-continue",), False),
        (b"POST / HTTP/1.1", (b"Content-Length: 1",), False),
        (b"POST / HTTP/1.0", (b"Content-Length: 1", b"Expect: 100-continue"), False),
    ],
)
def test_expect_is_for_a_body_that_is_to_come(line: bytes, fields: tuple[bytes, ...], expects: bool) -> None:
    head = RequestParser(Limits()).parse(get(*fields, line=line)[:-4], {})
    assert head.expects is expects


# -- framing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(b"%d" % number, number) for number in (0, 1, 5, 1 << 20, 1 << 30)],
        (b"00", 0),
        (b"007", 7),
        (b"0000000000000000005", 5),
    ],
)
def test_a_length_is_digits(value: bytes, expected: int) -> None:
    head = RequestParser(Limits()).parse(get(b"Content-Length: " + value)[:-4], {})
    assert (head.length, head.chunked) == (expected, False)


@pytest.mark.parametrize(
    ("limit", "length", "expected"),
    [(100, 100, 0), (100, 101, 413), (0, 1 << 50, 0), (1 << 30, 1 << 30, 0), (1 << 30, (1 << 30) + 1, 413)],
)
def test_a_declared_length_is_held_against_the_limit(limit: int, length: int, expected: int) -> None:
    assert status(get(b"Content-Length: %d" % length), Limits(body=limit)) == expected


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        (b"chunked", 0),
        (b"CHUNKED", 0),
        (b"gzip", 501),
        (b"gzip, chunked", 501),
        (b"chunked,chunked", 501),
        (b"identity", 501),
        (b"chunked;a=b", 400),
        (b"chunked, ", 400),
        (b"\xa0chunked", 400),
        (b"", 400),
    ],
)
def test_a_transfer_coding_is_exactly_chunked(coding: bytes, expected: int) -> None:
    read = whole(get(b"Transfer-Encoding: " + coding) + b"0\r\n\r\n")
    assert read.status == expected
    assert [request.head.chunked for request in read.requests] == ([] if expected else [True])


# -- limits ------------------------------------------------------------------------------------------------------------

SMALL = Limits(line=64, fields=4, field_size=32, body=100)


def ways(raw: bytes, limits: Limits) -> list[Read]:
    return [whole(raw, limits), byte_by_byte(raw, limits)]


@pytest.mark.parametrize(("more", "expected"), [(-1, 0), (0, 0), (1, 414), (100, 414)])
def test_the_limit_of_the_request_line(more: int, expected: int) -> None:
    line = b"GET /" + b"a" * (64 - len(b"GET / HTTP/1.1") + more) + b" HTTP/1.1"
    for read in ways(get(line=line), SMALL):
        assert read.status == expected


@pytest.mark.parametrize(("more", "expected"), [(-1, 0), (0, 0), (1, 431), (100, 431)])
def test_the_limit_of_a_field(more: int, expected: int) -> None:
    for field in (b"X:" + b"a" * (30 + more), b"X" * (31 + more) + b":", b"X:" + b" " * (30 + more)):
        for read in ways(get(field), SMALL):
            assert read.status == expected


@pytest.mark.parametrize(("count", "expected"), [(3, 0), (4, 431), (50, 431)])
def test_the_limit_of_the_number_of_fields_counts_all_of_them(count: int, expected: int) -> None:
    for name in (b"X-%d: y", b"X_%d: y"):
        for read in ways(get(*(name % number for number in range(count))), SMALL):
            assert read.status == expected


@pytest.mark.parametrize(("more", "expected"), [(-1, 0), (0, 0), (1, 431)])
def test_the_limit_of_the_whole_head(more: int, expected: int) -> None:
    """It holds for one field of that size, too, and for a parser that would let lines be as long."""
    limits = Limits(line=LIMIT_HEAD, field_size=LIMIT_HEAD)
    empty = get(b"X:")
    for read in ways(get(b"X:" + b"a" * (LIMIT_HEAD - len(empty) + more)), limits):
        assert read.status == expected
    many = [b"%d:" % (1000 + number) + b"a" * 994 for number in range(63)]
    empty = get(*many, b"X:")
    for read in ways(get(*many, b"X:" + b"a" * (LIMIT_HEAD - len(empty) + more)), limits):
        assert read.status == expected


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (LIMIT_BLANK // 2, 0), (LIMIT_BLANK // 2 + 1, 400)])
def test_a_few_empty_lines_before_the_request_are_skipped(count: int, expected: int) -> None:
    for read in ways(b"\r\n" * count + get(), Limits()):
        assert read.status == expected


def test_empty_lines_do_not_count_as_head() -> None:
    limits = Limits(line=LIMIT_HEAD, field_size=LIMIT_HEAD)
    raw = get(b"X:" + b"a" * (LIMIT_HEAD - len(get(b"X:"))))
    for read in ways(b"\r\n\r\n" + raw, limits):
        assert read.status == 0


@pytest.mark.parametrize(
    ("limits", "raw"),
    [
        (Limits(line=64), b"GET /" + b"a" * 50 + b" HTTP/1.1\r\nHost: h\r\n\r\n"),
        (Limits(field_size=64), b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 61 + b"\r\n\r\n"),
    ],
)
def test_a_line_at_its_limit_may_be_cut_before_its_lf(limits: Limits, raw: bytes) -> None:
    """A CR at the end of a piece is not yet a byte too many."""
    assert whole(raw, limits).status == 0
    for place in range(1, len(raw)):
        assert cut_at(raw, [place], limits).status == 0, place


def test_what_cannot_become_a_request_is_refused_before_its_end() -> None:
    """A client that sends no more gets its answer at once, and nobody waits for a head that is lost already."""
    for raw, expected in (
        (b"GET / HTTP/2.0\r\n", 505),
        (b"CONNECT h:1 HTTP/1.1\r\n", 501),
        (b"EHLO x\r\n", 400),
        (b"\x16\x03\x01\n", 400),
        (b"\n", 400),
        (b"GET /\r\n", 505),
        (b"A" * 8191, 414),
        (b"GET / HTTP/1.1\r\n" + b"A" * 8191, 431),
        (b"GET / HTTP/1.1\r\nHost: h\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101, 431),
    ):
        for read in ways(raw, Limits()):
            assert read.status == expected, raw[:40]


def test_what_is_not_decided_yet_is_waited_for() -> None:
    for raw in (b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost: h\r\n\r", b"\r", b"\r\n\r\n", b"A" * 8190 + b"\r"):
        for read in ways(raw, Limits()):
            assert (read.status, read.waiting, read.requests) == (0, True, []), raw[:40]


def test_a_head_buffer_gives_back_what_came_behind_the_head() -> None:
    buffer = HeadBuffer(RequestParser(Limits()))
    assert buffer.feed(b"\r\n\r\nGET / HT") is None
    assert buffer.feed(b"TP/1.1\r\nHost: h\r\n\r\nrest\r\n\r\n") == (b"GET / HTTP/1.1\r\nHost: h", b"rest\r\n\r\n")


# -- all cases, without a socket ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if not case.then], ids=lambda case: case.id)
def test_every_case_means_the_same_wherever_it_is_cut(case: Case) -> None:
    expected = whole(case.raw)
    assert (expected.status, expected.meaning) == (byte_by_byte(case.raw).status, byte_by_byte(case.raw).meaning)
    places = range(1, len(case.raw)) if len(case.raw) < 600 else range(7, len(case.raw), len(case.raw) // 60)
    for place in places:
        read = cut_at(case.raw, [place])
        assert (read.status, read.meaning) == (expected.status, expected.meaning), place
