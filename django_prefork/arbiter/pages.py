"""What the status listener answers: /live, /ready, /status.json and /metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from django_prefork import metrics
from django_prefork.arbiter.listeners import Listener
from django_prefork.http.buffer import HeadBuffer
from django_prefork.http.errors import HttpError
from django_prefork.http.head import error_response
from django_prefork.http.parser import Limits, RequestParser
from django_prefork.scoreboard import Scoreboard
from django_prefork.snapshot import readiness, snapshot_of

# A large page that was made is good for so long (seconds): asking again and again costs the Arbiter next to nothing.
FRESH = 0.05
_LARGE = ("/status.json", "/metrics")

_LIMITS = Limits(line=2048, fields=64, field_size=4096)
_TEXT = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

Page = tuple[int, str, str]


class Pages:
    """All of them, for any number of clients. `listeners` are those that clients of the application come by."""

    def __init__(self, board: Scoreboard, listeners: Sequence[Listener]) -> None:
        self._board = board
        self._listeners = listeners
        self._parser = RequestParser(_LIMITS)
        self._pages: dict[str, Callable[[], Page]] = {
            "/live": lambda: (200, _TEXT, "live\n"),
            "/ready": self._ready,
            "/status.json": self._status,
            "/metrics": self._metrics,
        }
        self._made: dict[str, tuple[float, Page]] = {}

    def buffer(self) -> HeadBuffer:
        """Where the head of a request comes together."""
        return HeadBuffer(self._parser)

    def answer(self, head: bytes) -> bytes:
        """The whole answer to this head, after which the connection ends. Raises `HttpError`."""
        request = self._parser.parse(head, {})
        if request.method not in ("GET", "HEAD"):
            page = 405, _TEXT, "GET or HEAD\n"
        elif request.path in self._pages:
            page = self._page(request.path)
        else:
            page = 404, _TEXT, "".join(f"{path}\n" for path in self._pages)
        code, kind, text = page
        body = text.encode("utf-8", "replace")
        lines = (
            f"HTTP/1.1 {code} {_REASONS[code]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *(["Allow: GET, HEAD"] if code == 405 else []),
            "Connection: close",
        )
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if request.method == "HEAD" else body)

    def _page(self, path: str) -> Page:
        now = time.monotonic()
        made, page = self._made.get(path, (0.0, None))
        if path not in _LARGE:
            page = self._pages[path]()
        elif page is None or now - made > FRESH:
            page = self._pages[path]()
            self._made[path] = now, page
        return page

    def _ready(self) -> Page:
        ready, why = readiness(self._board)
        return (200, _TEXT, "ready\n") if ready else (503, _TEXT, why + "\n")

    def _status(self) -> Page:
        told = snapshot_of(self._board, self._listeners)
        return 200, "application/json", json.dumps(told.as_dict()) + "\n"

    def _metrics(self) -> Page:
        return 200, metrics.CONTENT_TYPE, metrics.render(self._board, self._listeners)


class PageTalk:
    """`desk.Talk` in HTTP: one request, one answer."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._buffer = pages.buffer()

    def heard(self, data: bytes) -> bytes | None:
        try:
            found = self._buffer.feed(data)
            return None if found is None else self._pages.answer(found[0])
        except HttpError as error:
            return error_response(error.status)

    waits = False

    def look(self) -> bytes | None:
        return None
