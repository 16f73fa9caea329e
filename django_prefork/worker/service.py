"""Serving one request: who runs the application, and what is noted of it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from django_prefork import process
from django_prefork.access_format import Unread
from django_prefork.config import Config
from django_prefork.deadline import Clock
from django_prefork.http.environ import QUEUE_TIME
from django_prefork.http.errors import HttpError
from django_prefork.http.parser import RequestHead
from django_prefork.http.response import Response, Sink
from django_prefork.log import AccessLog
from django_prefork.row import Row
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker.guard import Guard
from django_prefork.worker.knots import Knot

logger = logging.getLogger("django_prefork")


class Client(Sink, Protocol):
    """Who asked: where the answer goes. `peer` is address and port, both empty on a unix socket."""

    @property
    def peer(self) -> tuple[str, str]: ...
    @property
    def label(self) -> bytes:
        """Who that is, for the scoreboard; ends with a line end."""


class Service:
    """Runs the application of one worker. `expire` is called with a reason when the worker had better be replaced."""

    def __init__(
        self,
        application: Callable[..., Any],
        config: Config,
        board: Scoreboard,
        *,
        row: Row,
        slot: int,
        generation: int,
        access_log: AccessLog | None,
        expire: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._application = application
        self._config = config
        self._board = board
        self._drains = board.drains
        self._slot = slot
        self._generation = generation
        self._access_log = access_log
        self._expire = expire
        self._row = row
        self._queue_timeout = config.queue_timeout or math.inf
        self._tells_timing = config.server_timing
        self._given_up = 0  # requests that were not served since it was last said
        self._last_wait = 0.0  # of the last one of them (seconds)
        self._say_so_at = 0.0
        self._requests = 0
        self._expires_after = self._lifetime()
        #: Whether connections may go on after an answer.
        self.keep_alive = config.keep_alive > 0
        path = config.health_path
        #: Answered by the server, and whether that tells that it is ready, or that it lives.
        self._health_paths = {} if path is None else {path: True, **_below(path, ready=True, live=False)}
        #: Whether this worker takes more: what health_path tells.
        self.ready = True
        self._clock = clock
        #: What of Django's request is to be untied behind it.
        self.knot = Knot()
        #: When it was done with the last request (monotonic seconds).
        self.ended = 0.0
        #: Looks after the other connections meanwhile; None where nobody could take them.
        self.guard: Guard | None = None
        #: Set in a child that the application forked: it must not come back to serve.
        self.forked = False

    def _lifetime(self) -> int:
        """Requests until a successor is asked for; 0: none. Jitter, or all workers would expire at once."""
        if not self._config.max_requests:
            return 0
        jitter = self._config.max_requests_jitter
        return self._config.max_requests + (int.from_bytes(os.urandom(4)) % (jitter + 1) if jitter else 0)

    def serve(self, client: Client, request: RequestHead) -> bool:
        """Run the application for `request`; whether the connection goes on.

        This is the seam: who runs the application, and in which thread, is decided here and nowhere else.
        """
        if request.path in self._health_paths:
            return self._health(client, request)
        waited = request.fields[QUEUE_TIME]
        if waited > self._queue_timeout:
            return self._waited_too_long(client, request)
        began = time.monotonic()
        request_id = request.fields.get("HTTP_X_REQUEST_ID")
        if request_id:
            self._row.begin(client.label + request_id.encode("latin-1") + b"\n" + request.line, began, waited)
        else:
            self._row.begin(client.label + request.line, began, waited)
        guard = self.guard
        if guard is not None:
            guard.began = began
            if guard.parked:
                guard.wake()
        clock = self._clock
        clock.began = began
        keep_alive = request.keep_alive and self.keep_alive and not self._drains[0]
        response = Response(request, client, keep_alive)
        if self._tells_timing:
            response.timing = lambda: _server_timing(waited, time.monotonic() - began)
        try:
            response.run(self._application, request.fields)
        except BaseException as error:
            # SystemExit and its kin pass Django by: no request_finished, and a transaction may be open.
            response.keep_alive = False
            process.close_databases()
            self._expire(f"the application raised {type(error).__name__}")
        if self.forked:
            os._exit(1)
        # Still a part of the request: what is freed may have a finalizer that hangs.
        if self.knot.held:
            self.knot.untie()
        if guard is not None:
            guard.began = 0.0
            if guard.acting:
                guard.part()
        clock.began = 0.0
        if clock.unusual and clock.end():
            # It may have been in the middle of a query: what the driver thinks of its connection is not to be trusted.
            process.close_databases()
            self._expire("a request took longer than its timeout")
        self._requests += 1
        if self._requests == self._expires_after:
            self._expire(f"max_requests {self._requests}")
        now = self.ended = time.monotonic()
        if self._access_log is not None:
            # Still a part of the request: a handler of the project's may hang, and must be noticed.
            self._access_log.log(request, response.status, response.sent, now - began, self._slot, self._generation)
            self.ended = time.monotonic()
        self._row.end(now, now - began, response.status, response.sent)
        return response.keep_alive

    def answered(self) -> int:
        """How many requests the application has answered."""
        return self._requests

    def _health(self, client: Client, request: RequestHead) -> bool:
        """Answered before Django: no ALLOWED_HOSTS, no redirect, no access log."""
        ready = self.ready and not self._board.draining
        response = Response(request, client, ready and request.keep_alive and self.keep_alive)
        if self._health_paths[request.path]:
            response.run(_ready if ready else _not_ready, request.fields)
        else:
            response.run(_live, request.fields)
        self.ended = time.monotonic()
        return response.keep_alive

    def _waited_too_long(self, client: Client, request: RequestHead) -> bool:
        """Who has waited longer than queue_timeout has given up, and serving it would keep the next one waiting."""
        response = Response(request, client, request.keep_alive and self.keep_alive and not self._board.draining)
        response.run(_come_back(self._queue_timeout), request.fields)
        self._row.waited(request.fields[QUEUE_TIME])
        self._row.refused()
        if self._access_log is not None:
            self._access_log.log(request, response.status, response.sent, 0.0, self._slot, self._generation)
        self._given_up += 1
        self._last_wait = request.fields[QUEUE_TIME]
        self.ended = time.monotonic()
        self.tell_given_up(self.ended)
        return response.keep_alive

    def tell_given_up(self, now: float) -> None:
        """Of requests that were answered with 503, if there were any; not before a second after the last time.

        To be called now and then, or the last ones of a burst would wait for the next; `now` is monotonic seconds.
        """
        if not self._given_up or now < self._say_so_at:
            return
        self._say_so_at = now + 1.0
        logger.warning(
            "requests waited longer than queue_timeout %g s: %d answered with 503, the last one after %.1f s",
            self._queue_timeout,
            self._given_up,
            self._last_wait,
        )
        self._given_up = 0

    def progressed(self) -> None:
        """A streaming response produced a piece, or its client took one: the time limit begins anew."""
        self._row.progress(time.monotonic())

    def refused(self, client: Client, request: RequestHead | None, error: HttpError) -> None:
        """A request that never became one is in the access log too: it is what one looks for there."""
        self._row.refused()
        logger.debug("refused a request of %s: %d %s", client.peer[0] or "a unix socket", error.status, error.detail)
        if self._access_log is not None:
            asked = request or Unread(client.peer[0])
            self._access_log.log(asked, error.status, 0, 0.0, self._slot, self._generation)

    def spool_room(self, count: int) -> bool:
        """`http.storage.Room`: the bound is the server's, the account each worker's own."""
        if count > 0 and self._board.spooled() + count > self._config.spool_limit:
            logger.error("spool_limit of %d bytes reached: nothing more is kept on disk", self._config.spool_limit)
            return False
        self._row.spool(count)
        return True


def _server_timing(waited: float, seconds: float) -> bytes:
    """https://www.w3.org/TR/server-timing/; in milliseconds. `seconds` is until the head was there."""
    return b"Server-Timing: queue;dur=%.1f, app;dur=%.1f\r\n" % (waited * 1000, seconds * 1000)


def _below(path: str, **names: bool) -> dict[str, bool]:
    return {f"{path.rstrip('/')}/{name}": value for name, value in names.items()}


def _live(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
    return [b"live\n"]


def _ready(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
    return [b"ready\n"]


def _come_back(seconds: float) -> Callable[..., list[bytes]]:
    def busy(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        headers = [
            ("Content-Type", "text/plain"),
            ("Cache-Control", "no-store"),
            ("Retry-After", str(math.ceil(seconds))),
        ]
        start_response("503 Service Unavailable", headers)
        return [b"too busy, try again\n"]

    return busy


def _not_ready(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
    return [b"stopping\n"]
