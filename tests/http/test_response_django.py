"""Files, and what Django returns: HttpResponse, StreamingHttpResponse, FileResponse."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished
from django.db import connections
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotModified,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)

from django_prefork.http.response import FileWrapper
from tests.http.wire import Log, Wire, answering, assert_own_500, serve

# Django's signals of a request look at the database connections that other tests have opened.
pytestmark = [pytest.mark.usefixtures("log"), pytest.mark.django_db]

# Not a whole number of blocks, and more than one.
CONTENT = bytes(range(256)) * 100 + b"the end"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def descriptors() -> int:
    connections.close_all()  # the tests' database is a file: Django lets go of it with the request
    return len(os.listdir("/dev/fd"))


class Seeking:
    """A file of the project's own making: it has no descriptor."""

    def __init__(self) -> None:
        self.read = io.BytesIO(CONTENT).read


class Rotating(io.FileIO):
    """What is read is not what is in the file: a file that is decrypted while it is read, say."""

    def read(self, size: int | None = -1, /) -> bytes:
        return bytes(byte ^ 0xFF for byte in super().read(size) or b"")


# -- wsgi.file_wrapper -------------------------------------------------------------------------------------------------


def _temporary(path: Path) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by the response
    file.write(CONTENT)
    file.seek(0)
    return file


def _opened_at(position: int) -> Callable[[Path], Any]:
    def opened(path: Path) -> Any:
        file = path.open("rb")
        file.seek(position)
        return file

    return opened


def _half_read(path: Path) -> Any:
    file = path.open("rb")
    assert file.read(10) == CONTENT[:10]  # the descriptor itself is further on: it was read into a buffer
    return file


@pytest.mark.parametrize("blksize", [1000, 1 << 20])
@pytest.mark.parametrize(
    ("opened", "by_the_kernel", "wanted"),
    [
        (lambda path: path.open("rb"), True, CONTENT),
        (lambda path: path.open("rb", buffering=0), True, CONTENT),
        (lambda path: path.open("r+b"), True, CONTENT),
        (lambda path: File(path.open("rb")), True, CONTENT),
        (lambda path: File(File(path.open("rb"))), True, CONTENT),
        (_temporary, True, CONTENT),
        (_opened_at(7), True, CONTENT[7:]),
        (_half_read, True, CONTENT[10:]),
        (_opened_at(len(CONTENT)), True, b""),
        (_opened_at(len(CONTENT) + 5), True, b""),
        (lambda path: io.BytesIO(CONTENT), False, CONTENT),
        (lambda path: Seeking(), False, CONTENT),
        # These have a descriptor, too, but of other bytes.
        (lambda path: gzip.GzipFile(_packed(path, gzip.compress)), False, CONTENT),
        (lambda path: bz2.BZ2File(_packed(path, bz2.compress)), False, CONTENT),
        (lambda path: io.BufferedReader(gzip.GzipFile(_packed(path, gzip.compress))), False, CONTENT),  # type: ignore[type-var]
        (lambda path: Rotating(path), False, bytes(byte ^ 0xFF for byte in CONTENT)),
        (lambda path: io.BufferedReader(Rotating(path)), False, None),
    ],
)
def test_a_file_goes_out_as_its_read_would_give_it(
    path: Path, opened: Any, by_the_kernel: bool, wanted: bytes | None, blksize: int
) -> None:
    before = descriptors()
    file = opened(path)
    with_close = hasattr(file, "close")
    answered = serve(answering(lambda: FileWrapper(file, blksize)))
    if wanted is not None:
        assert answered.body == wanted
    assert (answered.complete, answered.behind, answered.closes) == (True, b"", False)
    assert answered.wire.files == (by_the_kernel and bool(wanted))
    assert answered["content-length"] == (str(len(answered.body)) if by_the_kernel else None)
    if with_close:
        assert descriptors() == before, "the wrapper's close() is the file's"


def _packed(path: Path, compress: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(compress(CONTENT))
    return path


@pytest.mark.parametrize("opened", [lambda path: path.open("rb"), lambda path: io.BytesIO(CONTENT)])
@pytest.mark.parametrize(
    ("length", "body", "closes"),
    [(len(CONTENT), CONTENT, False), (5, CONTENT[:5], False), (0, b"", False), (len(CONTENT) + 1, CONTENT, True)],
)
def test_a_file_honours_content_length(
    path: Path, opened: Any, length: int, body: bytes, closes: bool, log: Log
) -> None:
    answered = serve(answering(lambda: FileWrapper(opened(path)), ("Content-Length", str(length))))
    assert answered["content-length"] == str(length)
    assert (answered.body, answered.complete, answered.behind, answered.closes) == (body, not closes, b"", closes)
    assert answered.response.sent == len(body)
    # A file is a stretch of bytes, of which a response may be a part; what is missing is an error.
    assert len(log.errors) <= 1 and bool(log.errors) >= closes


@pytest.mark.parametrize("opened", [lambda path: path.open("rb"), lambda path: io.BytesIO(CONTENT)])
@pytest.mark.parametrize("headers", [(), (("Content-Length", str(len(CONTENT))),)])
@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 x"), ("GET", "304 x")])
def test_a_file_that_must_not_be_sent_is_not(path: Path, opened: Any, headers: Any, method: str, status: str) -> None:
    before = descriptors()
    answered = serve(answering(lambda: FileWrapper(opened(path)), *headers, status=status), method=method)
    assert answered.status == int(status[:3])
    assert answered.wire.data.endswith(b"\r\n\r\n") and answered.wire.data.count(b"\r\n\r\n") == 1
    assert not answered.closes and answered.wire.files == 0
    if method == "HEAD" and headers:
        assert answered["content-length"] == str(len(CONTENT))
    assert descriptors() == before


def test_an_empty_file_is_an_answer_like_any_other(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    answered = serve(answering(lambda: FileWrapper(empty.open("rb"))))
    assert (answered["content-length"], answered.body, answered.closes) == ("0", b"", False)


def test_a_pipe_is_read(path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"hello")
    os.close(write)
    answered = serve(answering(lambda: FileWrapper(os.fdopen(read, "rb"))))
    assert (answered.body, answered["transfer-encoding"], answered.wire.files) == (b"hello", "chunked", 0)


def test_a_device_is_read() -> None:
    for buffering in (0, -1):
        file = Path("/dev/null").open("rb", buffering=buffering)  # noqa: SIM115 - closed by the response
        answered = serve(answering(FileWrapper(file)))
        assert (answered.body, answered["content-length"], answered.wire.files) == (b"", "0", 0)


def test_a_file_behind_what_was_written(path: Path) -> None:
    answered = serve(answering(lambda: FileWrapper(path.open("rb")), write=[b"first"]))
    assert (answered.body, answered.complete, answered.behind) == (b"first" + CONTENT, True, b"")


def test_a_file_without_start_response_is_500(path: Path, log: Log) -> None:
    before = descriptors()
    assert_own_500(serve(lambda environ, start_response: FileWrapper(path.open("rb"))), log)
    assert descriptors() == before


def test_a_closed_file_is_500(path: Path, log: Log) -> None:
    file = path.open("rb")
    file.close()
    assert_own_500(serve(answering(lambda: FileWrapper(file))), log)


def test_a_file_that_nobody_takes_is_closed(path: Path) -> None:
    before = descriptors()
    for takes in (0, 300):
        answered = serve(answering(lambda: FileWrapper(path.open("rb"))), wire=Wire(takes))
        assert answered.closes
    assert descriptors() == before


# -- Django ------------------------------------------------------------------------------------------------------------


class Handler(WSGIHandler):
    """Django's own way from a response to WSGI, without middleware and urls."""

    def __init__(self, view: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.view = view

    def get_response(self, request: HttpRequest) -> Any:
        response = self.view(request)
        response._resource_closers.append(request.close)
        return response


@pytest.fixture
def finished() -> Iterator[list[Any]]:
    """What request_finished was sent for: Django's close()."""
    seen: list[Any] = []

    def receiver(**named: Any) -> None:
        seen.append(named)

    request_finished.connect(receiver)
    yield seen
    request_finished.disconnect(receiver)


def _with_cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("hello")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2", httponly=True)
    return response


def _appended(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(b"he")
    response.write("llo")
    return response


def _of_pieces(request: HttpRequest) -> HttpResponse:
    return HttpResponse(piece for piece in ("he", b"l", "lo"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("http11", [True, False])
@pytest.mark.parametrize(
    ("view", "status", "length", "body"),
    [
        (lambda request: HttpResponse("hello"), 200, "5", b"hello"),
        (lambda request: HttpResponse(b""), 200, "0", b""),
        (_appended, 200, "5", b"hello"),
        (_of_pieces, 200, "5", b"hello"),
        (_with_cookies, 200, "5", b"hello"),
        (lambda request: HttpResponse("caf\xe9"), 200, "5", "caf\xe9".encode()),
        (lambda request: HttpResponse("x" * 1_000_000), 200, "1000000", b"x" * 1_000_000),
        (lambda request: HttpResponse("gone", status=404), 404, "4", b"gone"),
        (lambda request: HttpResponse(status=204), 204, None, b""),
        (lambda request: HttpResponse("body", status=204), 204, None, b""),
        (lambda request: HttpResponseNotModified(), 304, None, b""),
        (lambda request: HttpResponseRedirect("/caf\xe9"), 302, "0", b""),
        (lambda request: JsonResponse({"a": [1]}), 200, "10", b'{"a": [1]}'),
        (lambda request: HttpResponse("hello", headers={"Content-Length": "5"}), 200, "5", b"hello"),
    ],
)
def test_an_http_response(
    view: Any, status: int, length: str | None, body: bytes, method: str, http11: bool, finished: list[Any]
) -> None:
    fields = () if http11 else (b"Connection: keep-alive",)
    answered = serve(Handler(view), *fields, method=method, http11=http11)
    assert answered.status == status
    assert answered["content-length"] == length
    assert answered["transfer-encoding"] is None
    assert answered.body == (b"" if method == "HEAD" else body)
    assert (answered.complete, answered.behind, answered.closes) == (True, b"", False)
    assert len(finished) == 1
    if view is _with_cookies:
        assert [value for name, value in answered.headers if name == "set-cookie"] == [
            "a=1; Path=/",
            "b=2; HttpOnly; Path=/",
        ]


def test_an_http_response_goes_out_in_one_send() -> None:
    assert len(serve(Handler(lambda request: HttpResponse("hello"))).wire.sends) == 1


def test_a_response_whose_length_is_wrong_is_cut_or_closed(log: Log) -> None:
    for length, body, closes in ((4, b"hell", False), (6, b"hello", True)):
        answered = serve(Handler(lambda request, n=length: HttpResponse("hello", headers={"Content-Length": n})))  # type: ignore[misc]
        assert (answered.body, answered.closes, answered.complete) == (body, closes, not closes)
    assert len(log.errors) == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_streaming_response(method: str, finished: list[Any]) -> None:
    taken: list[str] = []

    def pieces() -> Iterator[str]:
        try:
            for piece in ("one", "", "two"):
                taken.append(piece)
                yield piece
        finally:
            taken.append("closed")

    answered = serve(Handler(lambda request: StreamingHttpResponse(pieces())), method=method)
    assert answered.body == (b"onetwo" if method == "GET" else b"")
    assert (answered["transfer-encoding"], answered.complete, answered.closes) == ("chunked", True, False)
    assert taken[-1] == "closed"
    assert method == "GET" or "two" not in taken
    assert len(finished) == 1


def test_a_streaming_response_that_fails(finished: list[Any], log: Log) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise RuntimeError("as asked")

    answered = serve(Handler(lambda request: StreamingHttpResponse(pieces())))
    assert (answered.body, answered.complete, answered.closes) == (b"one", False, True)
    assert len(finished) == 1
    assert len(log.errors) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("opened", [lambda path: path.open("rb"), lambda path: io.BytesIO(CONTENT)])
def test_a_file_response(path: Path, opened: Any, method: str, finished: list[Any]) -> None:
    before = descriptors()
    file = opened(path)
    answered = serve(Handler(lambda request: FileResponse(file, filename="x.bin")), method=method)
    assert answered.body == (CONTENT if method == "GET" else b"")
    assert answered["content-length"] == str(len(CONTENT))
    assert (answered.complete, answered.behind, answered.closes) == (True, b"", False)
    assert answered.wire.files == (method == "GET" and not isinstance(file, io.BytesIO))
    assert file.closed, "promptly, not when it is collected"
    assert descriptors() == before
    assert len(finished) == 1


def test_a_file_response_of_a_packed_file_is_unpacked(path: Path) -> None:
    packed = gzip.GzipFile(_packed(path, gzip.compress))
    answered = serve(Handler(lambda request: FileResponse(packed)))
    assert (answered.body, answered.complete, answered.behind) == (CONTENT, True, b"")


def test_a_receiver_of_request_finished_that_raises_does_no_harm(log: Log) -> None:
    def receiver(**named: Any) -> None:
        raise RuntimeError("of a receiver")

    request_finished.connect(receiver)
    try:
        answered = serve(Handler(lambda request: HttpResponse("hello")))
    finally:
        request_finished.disconnect(receiver)
    assert (answered.body, answered.closes) == (b"hello", False)
    assert log.errors == ["close() of the response failed: GET /path"]
