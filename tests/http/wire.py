"""A sink that a response is sent into, and what a client reads out of it."""

from __future__ import annotations

import http.client
import io
import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from django_prefork.http.environ import complete, template
from django_prefork.http.parser import Limits, RequestParser
from django_prefork.http.response import ClientGone, Response
from tests.http.cases.make import get

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]

_PARSER = RequestParser(Limits())


class Wire:
    """Keeps what is sent. After `takes` bytes the client is gone."""

    def __init__(self, takes: int | None = None) -> None:
        self.sends: list[bytes] = []
        self.files = 0
        self.pieces = 0
        self.takes = takes

    @property
    def data(self) -> bytes:
        return b"".join(self.sends)

    def answer(self, data: bytes, /) -> None:
        self.send(data)

    def send(self, data: bytes, more: bytes = b"", /) -> None:
        data += more
        assert type(data) is bytes and data, "a sink is given bytes, and some"
        if self.takes is not None and len(self.data) + len(data) > self.takes:
            raise ClientGone(32, "Broken pipe")
        self.sends.append(data)

    def stream(self) -> Callable[[tuple[bytes, ...], int], None]:
        return self._add

    def _add(self, parts: tuple[bytes, ...], size: int) -> None:
        assert all(parts) and size == sum(map(len, parts))
        self.send(b"".join(parts))
        self.progressed()

    def end_stream(self, last: bytes = b"", /) -> None:
        if last:
            self.send(last)

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        assert count > 0, "nothing to send is no reason to wait for the client"
        self.files += 1
        try:
            data = os.pread(descriptor, count, offset)
        finally:
            os.close(descriptor)
        assert len(data) == count
        self.send(data)

    def progressed(self) -> None:
        self.pieces += 1


@dataclass
class Answered:
    """`headers` in lower case, doubled ones as they came; `behind`: bytes on the wire that belong to no response."""

    wire: Wire
    response: Response
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    behind: bytes = b""

    def __getitem__(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        return not self.response.keep_alive


class _File(io.BytesIO):
    """Stays open, so that one can ask how far it was read."""

    def close(self) -> None:
        pass


class _Socket:
    def __init__(self, data: bytes) -> None:
        self.file = _File(data)

    def makefile(self, *_: object) -> io.BytesIO:
        return self.file


def read_back(data: bytes, method: str) -> tuple[int, list[tuple[str, str]], bytes, bool, bytes]:
    """`data` as http.client understands it: status, headers, body, whether it was complete, what stands behind it."""
    sock = _Socket(data)
    with http.client.HTTPResponse(cast(socket.socket, sock), method=method) as answer:
        answer.begin()
        try:
            body, complete = answer.read(), True
        except http.client.IncompleteRead as error:
            body, complete = error.partial, False
        headers = [(name.lower(), value) for name, value in answer.getheaders()]
        return answer.status, headers, body, complete, sock.file.read()


def serve(
    application: Application,
    *fields: bytes,
    method: str = "GET",
    http11: bool = True,
    keep_alive: bool = True,
    wire: Wire | None = None,
) -> Answered:
    """Run `application` for one request, and read its answer back."""
    line = f"{method} /path HTTP/1.{int(http11)}".encode()
    began = template(server_name="server", server_port="80", errors=io.StringIO())
    head = _PARSER.parse(get(*fields, line=line)[:-4], began)
    environ = complete(head, ("192.0.2.1", "1"), None)
    wire = wire or Wire()
    response = Response(head, wire, keep_alive)
    response.run(application, environ)
    answered = Answered(wire, response)
    if wire.data:
        back = read_back(wire.data, method)
        answered.status, answered.headers, answered.body, answered.complete, answered.behind = back
    return answered


class Result:
    """What an application returns: pieces, perhaps an exception behind them; counts calls of close()."""

    def __init__(self, pieces: Iterable[Any], failure: BaseException | None = None) -> None:
        self.pieces = list(pieces)
        self.failure = failure
        self.taken = 0
        self.closed = 0

    def __iter__(self) -> Result:
        return self

    def __next__(self) -> Any:
        if self.taken == len(self.pieces):
            if self.failure is not None:
                raise self.failure
            raise StopIteration
        self.taken += 1
        return self.pieces[self.taken - 1]

    def close(self) -> None:
        self.closed += 1


def answering(
    result: Any,
    *headers: tuple[str, str],
    status: str = "200 OK",
    write: Iterable[bytes] = (),
) -> Application:
    """An application that starts with `status` and `headers`, writes, and returns `result`."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        send = start_response(status, list(headers))
        for data in write:
            send(data)
        return result() if callable(result) else result

    return application


class Log:
    """What the server logged. An error that the test does not ask about fails it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.asked = False

    def of(self, level: int) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.levelno == level]

    @property
    def errors(self) -> list[str]:
        self.asked = True
        return self.of(logging.ERROR)

    @property
    def text(self) -> str:
        self.asked = True
        return self._caplog.text


def assert_own_500(answered: Answered, log: Log) -> None:
    assert answered.status == answered.response.status == 500
    assert answered.body == b"500 Internal Server Error\n"
    assert answered["connection"] == "close" and answered.closes
    assert answered.complete and answered.behind == b""
    for word in (b"evil", b"Injected", b"secret", b"X-First"):
        assert word not in answered.wire.data
    assert answered.wire.data.count(b"HTTP/1.1 ") == 1
    assert log.errors
