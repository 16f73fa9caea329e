"""The request body: what takes it, where it is kept, and what becomes of it when there is no room."""

from __future__ import annotations

import errno
import io
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_prefork.http.body import (
    LIMIT_CHUNK_EXTENSIONS,
    LIMIT_CHUNK_LINE,
    ChunkedBody,
    LengthBody,
    Spool,
    body_of,
)
from django_prefork.http.environ import NO_BODY, give_body
from django_prefork.http.errors import HttpError
from django_prefork.http.parser import LIMIT_HEAD, Limits, RequestParser
from django_prefork.http.storage import MEMORY, MEMORY_OF_ALL, ROOM_STEP, Storage


@pytest.fixture
def spool() -> Iterator[Spool]:
    spool = Spool(Storage(None, lambda count: True))
    yield spool
    spool.close()


def feed(body: LengthBody | ChunkedBody, data: bytes, size: int) -> bytes | None:
    """Feed `data` in pieces of `size`; what came behind the body, None if it is not complete."""
    for start in range(0, len(data), size):
        rest = body.feed(data[start : start + size])
        if rest is not None:
            return rest + data[start + size :]
    return None


SIZES = (1, 2, 3, 7, 1000, 1 << 20)

# -- with a length -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("length", "data", "rest"),
    [
        (5, b"hello", b""),
        (5, b"helloGET /", b"GET /"),
        (5, b"hell", None),
        (1, b"\r\n", b"\n"),
        (1, b"", None),
    ],
)
def test_a_body_with_a_length(spool: Spool, length: int, data: bytes, rest: bytes | None, size: int) -> None:
    assert feed(LengthBody(length, spool), data, size) == rest
    if rest is not None:
        assert spool.rewind().read() == data[:length]


# -- chunked -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("data", "body", "rest"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET"),
        (b"1\r\na\r\n2\r\nbc\r\n000\r\n\r\n\r\n", b"abc", b"\r\n"),
        (b"A;x=y\r\n0123456789\r\n0;z\r\nT: v\r\n\r\nrest", b"0123456789", b"rest"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b""),
    ],
)
def test_a_chunked_body(spool: Spool, data: bytes, body: bytes, rest: bytes, size: int) -> None:
    assert feed(ChunkedBody(Limits(), spool), data, size) == rest
    assert spool.rewind().read() == body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("end", range(1, len(b"5;a\r\nhello\r\n0\r\nX: y\r\n\r\n")))
def test_a_chunked_body_is_complete_with_its_last_byte_and_not_before(spool: Spool, end: int, size: int) -> None:
    data = b"5;a\r\nhello\r\n0\r\nX: y\r\n\r\n"
    body = ChunkedBody(Limits(), spool)
    assert feed(body, data[:end], size) is None
    assert feed(body, data[end:], size) == b""


LAST = b"0\r\n\r\n"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("data", "limits", "expected"),
    [
        # A line, with its CRLF two bytes longer, and all extensions together.
        (b"1;" + b"x" * (LIMIT_CHUNK_LINE - 2) + b"\r\na\r\n" + LAST, Limits(), 0),
        (b"1;" + b"x" * (LIMIT_CHUNK_LINE - 1) + b"\r\na\r\n" + LAST, Limits(), 400),
        (b"1;" + b"x" * 10 * LIMIT_CHUNK_LINE, Limits(), 400),
        (b"1;xxx\r\na\r\n" * (LIMIT_CHUNK_EXTENSIONS // 4) + LAST, Limits(), 0),
        (b"1;xxx\r\na\r\n" * (LIMIT_CHUNK_EXTENSIONS // 4) + b"1;\r\na\r\n" + LAST, Limits(), 400),
        (b"1;xxx\r\na\r\n" * (LIMIT_CHUNK_EXTENSIONS // 4) + b"0;\r\n\r\n", Limits(), 400),
        # The body.
        (b"5\r\nhello\r\n5\r\nhello\r\n" + LAST, Limits(body=10), 0),
        (b"5\r\nhello\r\n6\r\n", Limits(body=10), 413),
        (b"b\r\n", Limits(body=10), 413),
        (b"1\r\na\r\n" * 11, Limits(body=10), 413),
        (b"ffffffffffffffff\r\n", Limits(), 413),
        (b"ffffffffffffffff\r\nhello", Limits(body=0), None),
        # Trailers, under the limits of the head.
        (b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n", Limits(fields=3), 0),
        (b"0\r\n" + b"X: y\r\n" * 4 + b"\r\n", Limits(fields=3), 431),
        (b"0\r\nX:" + b"y" * 62 + b"\r\n\r\n", Limits(field_size=64), 0),
        (b"0\r\nX:" + b"y" * 63 + b"\r\n\r\n", Limits(field_size=64), 431),
        (b"0\r\nX:" + b"y" * 200, Limits(field_size=64), 431),
        (b"0\r\n" + b"X: 3456789\r\n" * (LIMIT_HEAD // 12) + b"\r\n", Limits(fields=10_000), 0),
        (b"0\r\n" + b"X: 3456789\r\n" * (LIMIT_HEAD // 12 + 1) + b"\r\n", Limits(fields=10_000), 431),
        (b"0\r\nX y\r\n\r\n", Limits(), 400),
        (b"0\r\n: y\r\n\r\n", Limits(), 400),
        (b"0\r\nX: \x00\r\n\r\n", Limits(), 400),
    ],
)
def test_the_bounds_of_a_chunked_body(
    spool: Spool, data: bytes, limits: Limits, expected: int | None, size: int
) -> None:
    """`expected`: a status, 0 for a body that is complete, None for one that still waits."""
    body = ChunkedBody(limits, spool)
    if expected:
        with pytest.raises(HttpError) as refused:
            feed(body, data, size)
        assert refused.value.status == expected
    else:
        assert feed(body, data, size) == (b"" if expected == 0 else None)


def test_a_chunk_too_large_is_refused_before_its_data() -> None:
    kept = Spool(Storage(None, lambda count: pytest.fail("nothing of it may be kept")))
    with pytest.raises(HttpError):
        ChunkedBody(Limits(body=MEMORY), kept).feed(b"%x\r\n" % (MEMORY + 1) + b"x" * (MEMORY + 1))
    assert kept.size == 0


def test_the_head_says_what_takes_the_body(spool: Spool) -> None:
    parser = RequestParser(Limits())
    for field, kind in ((b"Content-Length: 5", LengthBody), (b"Transfer-Encoding: chunked", ChunkedBody)):
        head = parser.parse(b"POST / HTTP/1.1\r\nHost: h\r\n" + field, {})
        assert type(body_of(head, Limits(), spool)) is kind


# -- where it is kept --------------------------------------------------------------------------------------------------


class Account:
    """A `Room` that remembers what was asked of it, and has `limit` bytes."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.asked: list[int] = []
        self.limit = limit

    def __call__(self, count: int) -> bool:
        if count > 0 and self.held + count > self.limit:
            return False
        self.asked.append(count)
        return True

    @property
    def held(self) -> int:
        return sum(self.asked)


def test_one_byte_chunks_are_not_written_one_by_one(tmp_path: Path) -> None:
    writes: list[int] = []

    class Noting(Spool):
        def _to_disk(self, data: bytes | memoryview) -> None:
            writes.append(len(data))
            super()._to_disk(data)

    account = Account()
    kept = Noting(Storage(str(tmp_path), account))
    body = ChunkedBody(Limits(), kept)
    body.feed(b"%x\r\n" % (MEMORY + 1) + b"x" * (MEMORY + 1) + b"\r\n")
    writes.clear()
    body.feed(b"1\r\nx\r\n" * 40_000)
    assert writes == [40_000]
    kept.close()


def open_files() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_there(fd)}


def _is_there(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("piece", [1000, 1 << 16, 1 << 20])
@pytest.mark.parametrize(
    ("size", "on_disk"), [(MEMORY - 1, False), (MEMORY, False), (MEMORY + 1, True), (3_000_000, True)]
)
def test_a_body_moves_to_disk_beyond_512_kib(tmp_path: Path, size: int, on_disk: bool, piece: int) -> None:
    account = Account()
    kept = Spool(Storage(str(tmp_path), account))
    data = os.urandom(size)
    body = LengthBody(size, kept)
    assert feed(body, data, piece) == b""
    assert kept.size == size
    # In steps, or the account would be asked for each of a thousand small pieces.
    assert size <= account.held < size + ROOM_STEP if on_disk else account.asked == []
    assert len(account.asked) <= 1 + size // ROOM_STEP
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    assert any(str(tmp_path) in name for name in open_files()) is on_disk
    file = kept.rewind()
    assert file.read() == data
    file.seek(0)
    assert b"".join(file) == data
    kept.close()
    kept.close()
    assert account.held == 0
    assert not any(str(tmp_path) in name for name in open_files())


def test_memory_is_512_kib_as_the_table_says_and_64_mib_for_all() -> None:
    assert MEMORY == 512 * 1024
    assert MEMORY_OF_ALL == 64 * 1024 * 1024


def test_all_bodies_of_a_worker_share_its_memory(tmp_path: Path) -> None:
    account = Account()
    storage = Storage(str(tmp_path), account)
    storage.left = 1000
    first, second, third = Spool(storage), Spool(storage), Spool(storage)
    first.write(b"a" * 600)
    second.write(b"b" * 400)
    assert storage.left == 0 and not account.held
    second.write(b"b")  # no more for it: all of it goes to disk, and its memory is free again
    assert storage.left == 400 and account.held
    third.write(b"c" * 400)
    assert [spool.rewind().read() for spool in (first, second, third)] == [b"a" * 600, b"b" * 401, b"c" * 400]
    for spool in (first, second, third):
        spool.close()
        spool.close()
    assert storage.left == 1000 and not account.held


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("limit", [0, MEMORY, MEMORY + 1, 1_000_000])
def test_no_room_is_507_and_what_was_taken_is_given_back(tmp_path: Path, limit: int, chunked: bool) -> None:
    account = Account(limit)
    kept = Spool(Storage(str(tmp_path), account))
    size = 1_500_000
    body = ChunkedBody(Limits(), kept) if chunked else LengthBody(size, kept)
    data = b"%x\r\n" % size * chunked + b"x" * size
    with pytest.raises(HttpError) as refused:
        feed(body, data, 4096)
    assert refused.value.status == 507
    kept.close()
    assert account.held == 0
    assert not any(str(tmp_path) in name for name in open_files())


def _full_device(**_: Any) -> io.FileIO:
    return io.FileIO("/dev/full", "w")


def _no_descriptor(**_: Any) -> io.FileIO:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("make", [_full_device, _no_descriptor])
def test_a_disk_that_takes_nothing_is_507(monkeypatch: pytest.MonkeyPatch, make: Callable[..., io.FileIO]) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    account = Account()
    kept = Spool(Storage(None, account))
    with pytest.raises(HttpError) as refused:
        kept.write(b"x" * (MEMORY + 1))
    assert refused.value.status == 507
    assert "x" not in refused.value.detail.replace("E", "")  # nothing of the body, only the error's name
    kept.close()
    assert account.held == 0


def test_a_disk_that_becomes_full_in_the_middle_is_507(tmp_path: Path) -> None:
    """A file that may not grow is what a full disk looks like from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    account = Account()
    kept = Spool(Storage(str(tmp_path), account))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY + 1000, hard))
    try:
        kept.write(b"x" * MEMORY)
        with pytest.raises(HttpError) as refused:
            for _ in range(100):
                kept.write(b"x" * 100)
        assert refused.value.status == 507
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept.close()
    assert account.held == 0


def test_a_folder_that_is_gone_is_507(tmp_path: Path) -> None:
    kept = Spool(Storage(str(tmp_path / "gone"), lambda count: True))
    with pytest.raises(HttpError) as refused:
        kept.write(b"x" * (MEMORY + 1))
    assert refused.value.status == 507
    kept.close()


# -- wsgi.input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [30, MEMORY + 30])
def test_the_input_has_all_that_pep_3333_asks_for(size: int) -> None:
    kept = Spool(Storage(None, lambda count: True))
    data = (b"one\ntwo\n" * (size // 8 + 1))[:size]
    kept.write(data)
    file = kept.rewind()
    lines = data.splitlines(keepends=True)
    assert file.read(0) == b""
    assert file.read(3) == data[:3]
    assert file.readline() == b"\n"
    assert file.readline(2) == b"tw"
    assert file.readlines(1) == [b"o\n"]
    assert file.readline(-1) == lines[2]
    assert next(iter(file)) == lines[3]
    assert file.readlines() == lines[4:]
    assert (file.read(), file.read(5), file.readline(), file.readlines(), list(file)) == (b"", b"", b"", [], [])
    kept.close()


def test_the_input_of_a_request_without_a_body_is_empty_again_and_again() -> None:
    for _ in range(2):
        assert (NO_BODY.read(), NO_BODY.read(5), NO_BODY.read(-1), NO_BODY.read(None)) == (b"", b"", b"", b"")
        assert (NO_BODY.readline(), NO_BODY.readline(5), NO_BODY.readlines(), NO_BODY.readlines(5)) == (
            b"",
            b"",
            [],
            [],
        )
        assert list(NO_BODY) == []
        NO_BODY.close()


def test_a_body_that_was_chunked_has_a_length_for_django() -> None:
    """Django reads CONTENT_LENGTH bytes, and would see nothing of it (ticket #35838)."""
    environ: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked"}
    give_body(environ, io.BytesIO(b"hello"), 5)
    assert environ["CONTENT_LENGTH"] == "5"
    assert environ["wsgi.input"].read() == b"hello"
    assert "HTTP_TRANSFER_ENCODING" not in environ
