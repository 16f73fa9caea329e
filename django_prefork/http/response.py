"""What the application returned -> bytes on the wire.

A `Response` runs one WSGI application for one request. It knows framing (RFC 9112 section 6) and PEP 3333, and writes
to a `Sink`: the connection, which keeps what the client does not take at once. Its promises: never a second status
line, never more body than announced, and `close()` of what the application returned is called exactly once, whatever
happens.
"""

from __future__ import annotations

import codecs
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BufferedRandom, BufferedReader, FileIO
from types import TracebackType
from typing import IO, Any, Protocol

from django_prefork.http.head import (
    CONNECTION,
    HOP_BY_HOP,
    LENGTH,
    SERVER,
    BadResponse,
    beginning_of,
    error_response,
    field_line,
    field_lines,
    warn_of,
    without,
)
from django_prefork.http.parser import RequestHead

logger = logging.getLogger("django_prefork")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

# Beyond this, copying a body behind its head costs more than gathering both (bytes).
_COPIED = 64 * 1024


# Loaded now: without a free descriptor, naming a request could not import it.
codecs.lookup("unicode_escape")


class Sink(Protocol):
    """Where a response's bytes go. All that send take all, at once or later, or raise `ClientGone`."""

    def answer(self, data: bytes, /) -> None:
        """A whole answer, on a connection that goes on."""

    def send(self, data: bytes, more: bytes = b"", /) -> None: ...
    def stream(self) -> Callable[[tuple[bytes, ...], int], None]:
        """For a body that comes in pieces: to be called with each (its parts, and how many bytes they are)."""

    def end_stream(self, last: bytes = b"", /) -> None:
        """Behind the pieces, whatever happened to them; `last` is what closes a chunked body."""

    def send_file(self, descriptor: int, offset: int, count: int) -> None: ...
    def progressed(self) -> None:
        """Said between the pieces of a stream: the application is not stuck."""


class FileWrapper:
    """`wsgi.file_wrapper`: an iterator over a file, which the server sends without reading where it can."""

    def __init__(self, filelike: IO[bytes], blksize: int = 8192) -> None:
        self.filelike = filelike
        self.blksize = blksize

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.filelike.read(self.blksize), b"")

    def close(self) -> None:
        # Django makes the file's close() the response's: it must be called, and promptly.
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()

    def regular(self) -> tuple[int, int, int] | None:
        """Descriptor, position and remaining bytes where the file is one that `sendfile` takes; None otherwise."""
        # Whose read() would be called: what unpacks or decrypts has a descriptor, too, but of other bytes (gzip.open).
        read = getattr(self.filelike, "read", None)
        file: Any = getattr(getattr(read, "__wrapped__", read), "__self__", None)
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO:
            return None
        try:
            descriptor = raw.fileno()
            position = file.tell()
            status = os.fstat(descriptor)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return descriptor, position, max(0, status.st_size - position)


class Response:
    """One answer.

    `keep_alive` is whether the connection may serve another request afterwards; `status` and `sent` (bytes of body)
    are for the log. `run()` never raises an `Exception`; a `BaseException` of the application (SystemExit) is answered
    with 500 and raised again.
    """

    __slots__ = (
        "_chunked",
        "_fields",
        "_head_sent",
        "_length",
        "_no_body",
        "_overrun",
        "_request",
        "_sink",
        "_status",
        "in_application",
        "keep_alive",
        "sent",
        "status",
        "timing",
    )

    def __init__(self, request: RequestHead, sink: Sink, keep_alive: bool) -> None:
        self._request = request
        self._sink = sink
        self.keep_alive = keep_alive
        self.status = 0
        #: Whether the application's own code runs: only then may it be interrupted.
        self.in_application = False
        self.sent = 0
        self._status: str | None = None
        self._fields: list[tuple[str, str]] = []
        self._head_sent = False
        self._length: int | None = None
        # RFC 9112 section 6.3: HEAD, 204 and 304 end with the head, whatever the application returns.
        self._no_body = request.method == "HEAD"
        self._overrun = False
        self._chunked = False
        #: Makes a whole field line, if there is to be one more: asked when the head is.
        self.timing: Callable[[], bytes] | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], /, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's `start_response`."""
        if exc_info is not None:
            try:
                if self._head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circular reference through the traceback
        elif self._status is not None:
            raise AssertionError("start_response() called a second time without exc_info")
        self._status = status
        self._fields = headers
        return self.write

    def run(self, application: Callable[..., Any], environ: dict[str, Any]) -> None:
        """Call `application` and send what it answers."""
        result: Any = None
        try:
            self.in_application = True
            result = application(environ, self.start)
            self.in_application = False
            if type(result) is list and len(result) == 1:
                self._send_whole(result[0])
            # Django's response object is neither list nor generator: asked this way, its body is there as a whole.
            elif getattr(result, "streaming", None) is False:
                self._send_whole(result.content)
            elif type(result) is FileWrapper:
                self._send_file(result)
            else:
                self._send_iterable(result)
        except OSError as error:
            if isinstance(error, ClientGone):
                # A client that went away is nobody's error.
                logger.debug("client gone: %s", error)
                self.keep_alive = False
            else:
                self._failed(environ)
        except Exception:
            self._failed(environ)
        except BaseException:
            self._failed(environ)
            raise
        finally:
            self.in_application = False
            close = getattr(result, "close", None) if type(result) is not list else None
            if close is not None:
                try:
                    close()
                except Exception:
                    # A receiver of request_finished, say. The answer is out; it must not cost the worker.
                    logger.exception("close() of the response failed: %s %s", *_named(environ))

    def write(self, data: bytes) -> None:
        """PEP 3333's `write()`: sends `data` at once."""
        data = _bytes(data)
        if not self._head_sent:
            head = self._head(None)
            self._send_piece(data, head)
        elif data:
            self._send_piece(data)

    def _send_whole(self, body: bytes) -> None:
        """The common case: head and body in one send."""
        if type(body) is not bytes:
            body = _bytes(body)
        if self._head_sent:  # by write()
            if body:
                self._send_piece(body)
            self._finish()
            return
        head = self._head(len(body))
        if self._no_body:
            body = b""
        elif self._length != len(body):
            body = self._cut(body)
        self.sent = len(body)
        if len(body) > _COPIED:
            self._sink.send(head, body)
        elif self.keep_alive:
            self._sink.answer(head + body)
        else:
            self._sink.send(head + body)

    def _send_file(self, wrapper: FileWrapper) -> None:
        """Leave the file to the kernel; the descriptor is duplicated, so that the application may close its own."""
        file = wrapper.regular() if self._status is not None and not self._head_sent else None
        if file is None:
            self._send_iterable(wrapper)
            return
        descriptor, position, count = file
        self._sink.send(self._head(count))
        if not self._no_body and self._length is not None:
            self.sent = min(count, self._length)
            if self.sent:
                self._sink.send_file(os.dup(descriptor), position, self.sent)

    def _send_iterable(self, result: Iterable[bytes]) -> None:
        """Piece by piece, as they are produced; the head waits for the first (PEP 3333)."""
        self.in_application = True
        stream: Callable[[tuple[bytes, ...], int], None] | None = None
        before, head = -1, b""
        for piece in result:
            if not piece:
                continue  # RFC 9112 section 7.1: an empty chunk would be the last one
            if type(piece) is not bytes:
                piece = _bytes(piece)
            if not self._head_sent:
                self._send_piece(piece, self._head(None))
                self._sink.progressed()
            elif piece := self._wanted(piece):
                if stream is None:
                    stream = self._sink.stream()
                size = len(piece)
                self.sent += size
                if self._chunked:
                    if size != before:
                        before, head = size, b"%x\r\n" % size
                    stream((head, piece, b"\r\n"), len(head) + size + 2)
                else:
                    stream((piece,), size)
            if self._no_body or self._overrun:
                break
        if not self._head_sent:
            # An iterable that gave nothing: the body is empty, and that is known now.
            self._sink.send(self._head(None if self._no_body else 0))
            return
        self._finish()

    def _send_piece(self, piece: bytes, head: bytes = b"") -> None:
        piece = self._wanted(piece)
        self.sent += len(piece)
        if piece and self._chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        if head or piece:
            self._sink.send(head + piece)

    def _wanted(self, piece: bytes) -> bytes:
        """What the answer has room for."""
        if self._no_body:
            return b""
        return piece if self._length is None else self._cut(piece)

    def _cut(self, piece: bytes) -> bytes:
        """Never more body than announced: the client would take it for the next answer."""
        assert self._length is not None
        left = self._length - self.sent
        if len(piece) > left:
            if not self._overrun:
                logger.error("response body longer than its Content-Length of %d: cut", self._length)
            self._overrun = True
            piece = piece[:left]
        return piece

    def _finish(self) -> None:
        if self._no_body:
            return
        self._sink.end_stream(b"0\r\n\r\n" if self._chunked else b"")
        if self._length is not None and self.sent < self._length:
            logger.error("response body shorter than its Content-Length of %d: connection closed", self._length)
            self.keep_alive = False

    def _head(self, length: int | None) -> bytes:
        """The status line and the fields; `length` is the body's where it is known. Decides the framing."""
        if self._status is None:
            raise BadResponse("the application returned without calling start_response()")
        self.status, beginning = beginning_of(self._status)
        parts = [beginning]
        add = parts.append
        known = field_lines.get
        declared: int | None = None
        length_line = b""
        for item in self._fields:
            line, kind, number = known(item) or field_line(item)
            if kind:
                if kind == LENGTH:
                    declared, length_line = number, line
                    continue
                if kind == CONNECTION:
                    if "close" in item[1].lower():
                        self.keep_alive = False  # the application's wish
                    continue
                if kind == HOP_BY_HOP:
                    warn_of(item[0])
                    continue
                # The project's own Server or Date instead of ours, and once.
                others = without(parts[0], b"Server: " if kind == SERVER else b"Date: ")
                if others == parts[0]:
                    continue
                parts[0] = others
            add(line)

        http11 = self._request.http11
        if self.status == 204 or self.status == 304:
            self._no_body = True  # RFC 9110 section 8.6: no Content-Length in 204; in 304 it would be that of the 200
        elif declared is not None:
            if length is not None and declared > length and not self._no_body:
                logger.error("response body shorter than its Content-Length of %d: connection closed", declared)
                self.keep_alive = False
            self._length = declared
            add(length_line)
        elif length is not None:
            self._length = length
            add(b"Content-Length: %d\r\n" % length)
        elif http11:
            self._chunked = True
            add(b"Transfer-Encoding: chunked\r\n")
        elif self._request.method != "HEAD":
            self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
        if self.timing is not None:
            add(self.timing())
        if not self.keep_alive:
            add(b"Connection: close\r\n")
        elif not http11:
            add(b"Connection: keep-alive\r\n")
        add(b"\r\n")
        self._head_sent = True
        return b"".join(parts)

    def _failed(self, environ: Mapping[str, Any]) -> None:
        """Say so in the log; answer 500 if nothing is out yet, else leave the body visibly unfinished."""
        error = sys.exc_info()[1]
        # The answer first: a log handler of the project's may fail, too.
        self.keep_alive = False
        try:
            if self._head_sent:
                self._sink.end_stream()
            else:
                self._head_sent = True
                self.status = 500
                self._sink.send(error_response(500, head_only=self._request.method == "HEAD"))
        except ClientGone:
            pass  # the client did not wait for it
        method, path = _named(environ)
        if isinstance(error, BadResponse):
            logger.error("%s: %s %s", error, method, path)
        else:
            logger.error("the application failed: %s %s", method, path, exc_info=error)


class ClientGone(ConnectionError):
    """Raised by a sink: nobody is there to take the answer."""


def _bytes(body: object) -> bytes:
    """PEP 3333: byte strings. Found out before the head is sent, what is none can still be answered with 500."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise BadResponse("the application's response has a body that is not made of bytes")


def _named(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Method and path, safe to be written to a log."""
    path = str(environ.get("PATH_INFO", "")).encode("unicode_escape").decode("ascii")
    return environ.get("REQUEST_METHOD", "?"), path
