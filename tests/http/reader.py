"""All requests in a stream of bytes, read by the parser and the bodies alone: a connection without a socket."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django_prefork.http.body import ChunkedBody, LengthBody, Spool, body_of
from django_prefork.http.buffer import HeadBuffer
from django_prefork.http.errors import HttpError
from django_prefork.http.parser import Limits, RequestHead, RequestParser, lines_of
from django_prefork.http.storage import Storage


@dataclass
class Request:
    head: RequestHead
    body: bytes = b""

    def __repr__(self) -> str:
        return f"<{self.head.method} {self.head.target} {self.head.fields} {self.body!r}>"

    @property
    def meaning(self) -> tuple[Any, ...]:
        """All that an application, and the connection, could tell two requests apart by."""
        head = self.head
        return (
            (head.method, head.target, head.path, head.query, head.line, head.http11, head.keep_alive, head.expects),
            (head.length, head.chunked),
            dict(head.fields),
            self.body,
        )


@dataclass
class Read:
    """`status` is that of the refusal behind the `requests`, 0 where there was none; `waiting`: for more bytes."""

    requests: list[Request] = field(default_factory=list)
    status: int = 0
    detail: str = ""
    waiting: bool = False

    @property
    def meaning(self) -> tuple[Any, ...]:
        return [request.meaning for request in self.requests], bool(self.status), self.waiting


def spool(room: Any = lambda count: True, folder: str | None = None) -> Spool:
    return Spool(Storage(folder, room))


class Reader:
    """Fed with pieces; `read` grows. Anything but an `HttpError` is the parser's fault, and raised."""

    def __init__(self, limits: Limits | None = None, parser: RequestParser | None = None) -> None:
        self.limits = limits or Limits()
        self.parser = parser or RequestParser(self.limits)
        self.read = Read()
        self.closed = False
        self._partial: HeadBuffer | None = None
        self._request: Request | None = None
        self._body: LengthBody | ChunkedBody | None = None

    def feed(self, data: bytes) -> None:
        try:
            while data and not self.closed:
                data = self._take_body(data) if self._body is not None else self._take_head(data)
        except HttpError as error:
            self.read.status, self.read.detail = error.status, error.detail
            self.closed = True
            if self._body is not None:
                self._body.spool.close()
        self.read.waiting = not self.closed and (self._partial is not None or self._body is not None)

    def _take_head(self, data: bytes) -> bytes:
        if self._partial is None:
            lines = lines_of(data) if len(data) <= self.parser.small else None
            if lines is not None:
                return self._begin(lines, b"")
            end = data.find(b"\r\n\r\n")
            if 0 < end <= self.parser.small and data[0] != 0x0D:
                return self._begin(data[: end + 1].split(b"\n"), data[end + 4 :])
            self._partial = HeadBuffer(self.parser)
        found = self._partial.feed(data)
        if found is None:
            return b""
        self._partial = None
        head, rest = found
        return self._begin((head + b"\r").split(b"\n"), rest)

    def _begin(self, lines: list[bytes], rest: bytes) -> bytes:
        self._request = Request(self.parser.judge(lines, {}))
        if self._request.head.length or self._request.head.chunked:
            self._body = body_of(self._request.head, self.limits, spool())
        else:
            self._complete()
        return rest

    def _take_body(self, data: bytes) -> bytes:
        assert self._body is not None and self._request is not None
        rest = self._body.feed(data)
        if rest is None:
            return b""
        file = self._body.spool.rewind()
        self._request.body = file.read()
        assert len(self._request.body) == self._body.spool.size
        self._body.spool.close()
        self._body = None
        self._complete()
        return rest

    def _complete(self) -> None:
        assert self._request is not None
        self.read.requests.append(self._request)
        self.closed = not self._request.head.keep_alive
        self._request = None

    def close(self) -> None:
        """The client is gone: what is half there is dropped."""
        if self._body is not None:
            self._body.spool.close()


def read(pieces: Iterable[bytes], limits: Limits | None = None) -> Read:
    reader = Reader(limits)
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    return reader.read


def whole(data: bytes, limits: Limits | None = None) -> Read:
    return read([data], limits)


def byte_by_byte(data: bytes, limits: Limits | None = None) -> Read:
    return read((data[index : index + 1] for index in range(len(data))), limits)


def cut_at(data: bytes, places: Iterable[int], limits: Limits | None = None) -> Read:
    """`data`, cut at those of `places` that are within it."""
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return read((data[start:end] for start, end in itertools.pairwise(edges)), limits)
