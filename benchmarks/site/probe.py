"""Hello-world that counts how many of its results were closed, as PEP 3333 demands of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_closed = 0


class _Result:
    """Not a list, which has no close() and which servers may take a short way with."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        global _closed
        _closed += 1


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> _Result:
    body = b"%d" % _closed if environ["PATH_INFO"] == "/closed" else b"hello\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return _Result(body)
