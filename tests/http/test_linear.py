"""The cost of any input is linear in its length, and what is refused is refused before it costs much.

Measured in the thread's own processor time, so that a busy machine does not make it fail: four times the input may
cost eleven times as much, and that at the best of several attempts. What is quadratic costs sixteen times as much; a
machine whose caches others use has been seen at seven.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from django_prefork.http.body import LIMIT_CHUNK_LINE, ChunkedBody
from django_prefork.http.buffer import HeadBuffer
from django_prefork.http.environ import TrustedProxies
from django_prefork.http.errors import HttpError
from django_prefork.http.parser import LIMIT_HEAD, Limits, RequestParser
from django_prefork.worker.connection import RECEIVE, RECEIVE_BODY
from tests.http.cases.make import get, post
from tests.http.reader import Reader, byte_by_byte, spool, whole

WIDE = Limits(line=LIMIT_HEAD, fields=10_000, field_size=LIMIT_HEAD, body=0)


def cost(work: Callable[[bytes], object], data: bytes) -> float:
    began = time.thread_time()
    work(data)
    return time.thread_time() - began


def assert_linear(make: Callable[[int], bytes], work: Callable[[bytes], object], n: int) -> None:
    small, large = make(n), make(4 * n)
    assert len(large) > 3.5 * len(small)
    ratios = []
    for _ in range(8):
        ratios.append(cost(work, large) / max(cost(work, small), 1e-6))
        if ratios[-1] < 11:
            return
    pytest.fail(f"four times the input costs {min(ratios):.1f} times as much")


def read_whole(data: bytes) -> None:
    # A parser of its own each time: nothing is remembered.
    assert whole(data, WIDE).requests


def read_bytes(data: bytes) -> None:
    assert byte_by_byte(data, WIDE).requests


HEADS: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "one long field": (12_000, lambda n: get(b"X: " + b"a" * n)),
    "one long name": (12_000, lambda n: get(b"X" * n + b": a")),
    "one long target": (12_000, lambda n: get(line=b"GET /" + b"a" * n + b" HTTP/1.1")),
    "a target of escapes": (4_000, lambda n: get(line=b"GET /" + b"%61" * n + b" HTTP/1.1")),
    "a target of question marks": (12_000, lambda n: get(line=b"GET /" + b"?" * n + b" HTTP/1.1")),
    "an absolute target": (12_000, lambda n: get(line=b"GET http://" + b"a" * n + b"/ HTTP/1.1")),
    "one long host": (12_000, lambda n: get(host=b"Host: " + b"a" * n)),
    "a host of escapes": (4_000, lambda n: get(host=b"Host: " + b"%61" * n)),
    "one long connection": (6_000, lambda n: get(b"Connection: " + b"a," * n)),
    "blanks around a value": (12_000, lambda n: get(b"X: " + b" " * n + b"a" + b" " * 10)),
    "many fields": (1_200, lambda n: get(*(b"X-%04d: y" % number for number in range(n)))),
    "many fields of one name": (1_200, lambda n: get(*[b"X-Name: yz"] * n)),
    "many short fields of one name": (2_400, lambda n: get(*[b"X:y"] * n)),
    "many cookies": (900, lambda n: get(*(b"Cookie: %04d" % number for number in range(n)))),
    "many dropped fields": (1_200, lambda n: get(*(b"X_%04d: y" % number for number in range(n)))),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("read", [read_whole, read_bytes])
def test_a_head(name: str, read: Callable[[bytes], None]) -> None:
    n, make = HEADS[name]
    assert_linear(make, read, n)


REFUSED: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "a host that is almost right": (4_000, lambda n: get(host=b"Host: " + b"a" * n + b'"')),
    "a host of almost escapes": (4_000, lambda n: get(host=b"Host: " + b"%61" * (n // 3) + b"%")),
    "a port without end": (4_000, lambda n: get(host=b"Host: h:" + b"1" * n)),
    "an address without end": (4_000, lambda n: get(host=b"Host: [" + b":" * n + b"]")),
    "a coding of blanks": (4_000, lambda n: get(b"Transfer-Encoding: a" + b" " * n + b"b")),
    "a coding of commas": (4_000, lambda n: get(b"Transfer-Encoding: " + b"a, " * (n // 3) + b'"')),
    "a length without end": (4_000, lambda n: get(b"Content-Length: " + b"1" * n)),
    "a version without end": (4_000, lambda n: get(line=b"GET / HTTP/1." + b"1" * n)),
    "a method without end": (4_000, lambda n: get(line=b"A" * n + b"a / HTTP/1.1")),
    "words without end": (4_000, lambda n: get(line=b"GET / " + b"a " * (n // 2) + b"HTTP/1.1")),
    "a chunk of zeros": (4_000, lambda n: post(b"0" * n, b"Transfer-Encoding: chunked")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal(name: str) -> None:
    """Most of these cost next to nothing; none may cost what a regular expression could make of it."""
    n, make = REFUSED[name]
    data = make(4 * n)
    assert whole(data, WIDE).status
    assert min(cost(lambda raw: whole(raw, WIDE), data) for _ in range(3)) < 0.02


def feed_chunks(size: int) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        kept = spool()
        body = ChunkedBody(Limits(), kept)
        for start in range(0, len(data), size):
            rest = body.feed(data[start : start + size])
        assert rest == b""
        kept.close()

    return feed


@pytest.mark.parametrize(("size", "n"), [(1 << 18, 25_000), (16 * 1024, 25_000), (7, 10_000), (1, 5_000)])
def test_a_hundred_thousand_one_byte_chunks(size: int, n: int) -> None:
    assert_linear(lambda n: b"1\r\nx\r\n" * n + b"0\r\n\r\n", feed_chunks(size), n)


@pytest.mark.parametrize(("size", "n"), [(1 << 18, 1 << 20), (1000, 1 << 16), (1, 10_000)])
def test_one_large_chunk(size: int, n: int) -> None:
    assert_linear(lambda n: b"%x\r\n" % n + b"x" * n + b"\r\n0\r\n\r\n", feed_chunks(size), n)


def test_many_trailers() -> None:
    def feed(data: bytes) -> None:
        kept = spool()
        body = ChunkedBody(WIDE, kept)
        assert [body.feed(data[start : start + 1]) for start in range(len(data))][-1] == b""

    assert_linear(lambda n: b"0\r\n" + b"X: y\r\n" * n + b"\r\n", feed, 2_000)


@pytest.mark.parametrize("size", [1, 100, 16 * 1024])
@pytest.mark.parametrize(
    ("begin", "limit"),
    [
        (b"", Limits().line),
        (b"GET /", Limits().line),
        (b"GET / HTTP/1.1\r\n", Limits().field_size + 16),
        (b"GET / HTTP/1.1\r\nX: ", Limits().field_size + 16),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nX:", Limits().field_size + 30),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;", LIMIT_CHUNK_LINE + 60),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:", Limits().field_size + 70),
    ],
)
def test_a_mebibyte_without_end_is_refused_at_its_limit(begin: bytes, limit: int, size: int) -> None:
    """And not a piece later: nothing of what comes behind is kept."""
    reader = Reader()
    reader.feed(begin)
    taken = len(begin)
    filler = b"a" * size
    while not reader.read.status:
        assert taken < 1 << 20
        reader.feed(filler)
        taken += size
    assert reader.read.status in (400, 414, 431)
    assert taken <= limit + size


def test_five_thousand_header_lines_are_refused_at_the_hundred_and_first() -> None:
    buffer = HeadBuffer(RequestParser(Limits()))
    assert buffer.feed(b"GET / HTTP/1.1\r\n") is None
    for number in range(5000):
        try:
            assert buffer.feed(b"X-%d: y\r\n" % number) is None
        except HttpError as error:
            assert (error.status, number) == (431, 100)
            break
    else:
        pytest.fail("never refused")


def test_pipelined_requests_in_one_segment() -> None:
    """What is sliced off a segment again and again costs more than linear: it is bounded by what one recv takes."""
    one = get(host=b"Host:h", line=b"GET / HTTP/1.1")
    assert len(whole(one * 50).requests) == 50
    assert_linear(lambda n: one * n, lambda data: whole(data), RECEIVE // len(one) // 4)
    # Behind a body it may be more.
    largest = one * (RECEIVE_BODY // len(one))
    assert min(cost(lambda data: whole(data), largest) for _ in range(3)) < 1.0


@pytest.mark.parametrize("piece", [b"10.0.0.1,", b",", b"for=10.0.0.1,", b";", b'for="', b"::,", b"unknown, 10.0.0.1,"])
def test_forwarded_by_many(piece: bytes) -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])

    def apply(data: bytes) -> None:
        for key in ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_FORWARDED"):
            proxies.apply({key: data.decode()}, "10.0.0.1")

    assert_linear(lambda n: piece * n, apply, 2_000)
