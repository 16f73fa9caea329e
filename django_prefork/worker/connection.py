"""One client: its socket, its state, its buffers. The only owner of that file descriptor."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from enum import Enum, auto
from typing import Any, Protocol

from django_prefork.http.body import ChunkedBody, LengthBody, Spool, body_of
from django_prefork.http.buffer import HeadBuffer
from django_prefork.http.environ import TrustedProxies, complete, give_body
from django_prefork.http.errors import HttpError
from django_prefork.http.head import error_response
from django_prefork.http.parser import Limits, RequestHead, RequestParser, lines_of
from django_prefork.http.repeats import Repeats, again
from django_prefork.http.response import ClientGone
from django_prefork.worker.cork import UNCORKED
from django_prefork.worker.handoff import TRAVELLING, Queues
from django_prefork.worker.loop import FOREVER, READ, WRITE, Loop
from django_prefork.worker.outlet import Outlet, Supply
from django_prefork.worker.sending import LOOKS, RATE
from django_prefork.worker.waiting import AWAY, waited

logger = logging.getLogger("django_prefork")

# One recv's worth: most requests whole, and little to allocate. Uploads take larger pieces.
RECEIVE = 16 * 1024
RECEIVE_BODY = 256 * 1024
# Behind an error: what the client still sends is read and dropped this far (bytes, seconds), or a reset would destroy
# the answer on its way to it (RFC 9112 section 9.6).
LINGER_BYTES = 64 * 1024
LINGER_SECONDS = 2.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(Enum):
    """What a connection waits for; each has a deadline."""

    IDLE = auto()  # for the first byte of a request
    HEAD = auto()  # for the rest of a head
    BODY = auto()  # for the rest of a body
    SERVING = auto()  # for the application
    SENDING = auto()  # for the client to take the answer
    LINGERING = auto()  # for the client to close
    CLOSED = auto()


class Host(Supply, Protocol):
    """The worker, as its connections know it."""

    loop: Loop
    parser: RequestParser
    limits: Limits
    trusted: TrustedProxies
    later: deque[Connection]
    idle_seconds: float

    def closed(self, connection: Connection) -> None: ...


# Looked up in the module, not in the enumeration: 10 times a request, 60 ns less each (Python 3.11).
_IDLE, _HEAD, _BODY, _SERVING, _SENDING, _LINGERING, _CLOSED = State


class Connection(Outlet):
    """`peer` is address and port as strings, both empty on a unix socket; `bind` names its listener.

    `template` is what the environ of every request of that listener has in common.
    """

    __slots__ = (
        "_body",
        "_body_began",
        "_body_bytes",
        "_expects_more",
        "_head",
        "_interest",
        "_lingered",
        "_loop",
        "_partial",
        "_repeats",
        "_rest",
        "_rest_since",
        "_trusted",
        "_waited",
        "bind",
        "deadline",
        "label",
        "peer",
        "queued",
        "state",
        "template",
    )

    worker: Host

    def __init__(
        self, worker: Host, sock: socket.socket, peer: tuple[str, str], bind: str, template: dict[str, Any]
    ) -> None:
        super().__init__(worker, sock, worker.loop.cork if peer[0] else UNCORKED)
        # As is that of the worker what each request needs, without the way over it.
        self._loop = worker.loop
        self.peer = peer
        self.bind = bind
        self.template = template
        self.state = _IDLE
        self.deadline = FOREVER
        self.queued = FOREVER
        # What a proxy says of its clients is believed, or not, for as long as the connection lasts.
        self._trusted = worker.trusted if peer[0] in worker.trusted else None
        #: Who asks, for the scoreboard.
        self.label = peer[0].encode() + b"\n"
        self._interest = 0
        self._partial: HeadBuffer | None = None
        self._repeats: Repeats | None = Repeats()  # None: the client does not repeat itself
        self._head: RequestHead | None = None
        self._body: LengthBody | ChunkedBody | None = None
        self._body_bytes = 0
        self._body_began = 0.0
        self._rest = b""  # bytes of a next request that came with this one
        self._rest_since = 0.0
        self._waited = 0.0  # how long the request that is here had to (seconds)
        self._lingered = 0
        self._expects_more = False  # whether the client meant the connection to go on

    @property
    def idle(self) -> bool:
        """Nothing of a request is here."""
        return self.state is _IDLE and not self._rest

    # -- from one worker to another ------------------------------------------------------------------------------------

    def adopt(self, data: bytes, since: float) -> None:
        """It is new, or comes from a sibling, which had read `data` of it.

        `since` is when a request became ready there (monotonic seconds); 0: none had.
        """
        if since:
            self._waited = max(0.0, time.monotonic() - since)
        if not data:
            if not self.receive(new=True):
                self._waited = 0.0  # it was something else that did
        elif self._is_there():
            self._take(data)
        self.wait()

    def give(self, queues: Queues, *, ready: bool = False) -> bool | None:
        """Hand it to a sibling; False: the queue has no room now, None: it is not in a state to travel.

        A half-sent response, a body that is on its way and a client that is being said goodbye to stay. `ready`: there
        is something to be read.
        """
        if self.state is not _IDLE and self.state is not _HEAD:
            return None
        data = bytes(self._partial.data) if self._partial is not None else self._rest
        if len(data) > TRAVELLING:
            return None
        # Out of the loop first: the description is shared, and would go on waking us.
        interest, self._interest = self._interest, 0
        if interest:
            self._loop.forget(self.fd)
        since = time.monotonic() - self._waited if ready or data else 0.0
        if self._rest:
            since = self._rest_since
        if (queues.ready if since else queues.idle).give(self.sock, self.peer, self.bind, data, since):
            self._row.gave(since > 0)
            self.close()
            return True
        if interest:
            self._watch(interest)
        return False

    def go_on_sending(self) -> None:
        """For the guard: the loop stands still, and the client takes more of its answer."""
        if self.state is _SENDING and self._sending:
            try:
                self._sending.flush()
            except OSError:
                pass  # the loop will find out

    # -- what the loop says --------------------------------------------------------------------------------------------

    def ready(self, mask: int) -> None:
        state = self.state
        if state is _IDLE:  # mostly
            if not self._rest:  # else: a request that is here already comes first
                self.receive()
        elif state is _SENDING:
            self._flush()
        elif mask & WRITE and state is _BODY:
            self._invite()
        elif not self._rest:
            self.receive()

    def receive(self, new: bool = False) -> bool:
        """Take what has come, and serve what is complete; whether there was anything."""
        try:
            data = self.sock.recv(RECEIVE if self.state is not _BODY else RECEIVE_BODY)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return True
        if data:
            self._row.received += len(data)
            loop = self._loop
            if (not new and loop.now - loop.since <= AWAY) or self._is_there():
                self._take(data)
        else:
            self._ended()
        return True

    def _is_there(self) -> bool:
        """Whether the client is: nobody waits for the answer of one that has reset its connection. How long it waited.

        Asked where the request may have had to wait, since it costs a system call.
        """
        seconds = waited(self.sock)
        if seconds is None:
            logger.debug("client %s was gone before it was served", self.peer[0])
            self.close()
            return False
        if seconds > self._waited:
            self._waited = seconds
        return True

    def late(self, now: float) -> None:
        state = self.state
        if state is _HEAD:
            self._refuse(HttpError(408, "the head took longer than header_timeout"))
        elif state is _BODY:
            self._refuse(HttpError(408, "the body came slower than body_timeout allows"))
        else:
            if state is _SENDING:
                if self._still_takes(now):
                    return
                logger.debug("client %s took nothing for send_timeout: closed", self.peer[0])
            self.close()

    # -- a request comes in --------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        try:
            if self.state is _IDLE or self.state is _HEAD:
                # The usual case: a whole head, and small enough that no line of it can be too long.
                parser = self.worker.parser
                if self._partial is None and len(data) <= parser.small:
                    repeats, request = self._repeats, None
                    if repeats is not None and repeats.shape is not None:
                        request = again(data, repeats, parser)
                    if request is None and (lines := lines_of(data)):
                        request = parser.judge(lines, self.template.copy())
                        if repeats is not None:
                            self._learn(repeats, lines, request)
                    if request is not None:
                        if self._loop.reads_ahead and self._interest and not request.length and not request.chunked:
                            self._stand_in_line(request, data)
                        else:
                            self._begin(request, b"")
                        return
                self._take_head(data)
            elif self.state is _BODY:
                self._take_body(data)
            elif self.state is _LINGERING:
                self._lingered += len(data)
                if self._lingered > LINGER_BYTES:
                    self.close()
        except HttpError as error:
            self._refuse(error)

    def _learn(self, repeats: Repeats, lines: list[bytes], request: RequestHead) -> None:
        repeats.learn(lines, request, len(self.template))
        if not repeats.tries:
            self._repeats = None

    def _take_head(self, data: bytes) -> None:
        if self._partial is None:
            end = data.find(b"\r\n\r\n")
            if 0 < end <= self.worker.parser.small and data[0] != 0x0D:
                self._judge(data[: end + 1].split(b"\n"), data[end + 4 :])
                return
            self._partial = HeadBuffer(self.worker.parser)
        found = self._partial.feed(data)
        if found is None:
            # A line end behind the last request is not the beginning of a next one: still idle.
            if self.state is _IDLE and not self._partial.blank:
                self._wait_for(_HEAD, self.worker.config.header_timeout)
        else:
            self._partial = None
            head, rest = found
            self._judge((head + b"\r").split(b"\n"), rest)

    def _judge(self, lines: list[bytes], rest: bytes) -> None:
        self._begin(self.worker.parser.judge(lines, self.template.copy()), rest)

    def _begin(self, request: RequestHead, rest: bytes) -> None:
        """The head is here, and `rest` of what comes behind it."""
        worker = self.worker
        self._head = request
        if request.length or request.chunked:
            self._body = body_of(request, worker.limits, Spool(worker.storage))
            self._body_bytes = 0
            self._body_began = self._loop.now
            self.state = _BODY
            if rest:
                self._take_body(rest)
            elif request.expects:
                # RFC 9110 section 10.1.1; a client that has begun to send needs no invitation.
                try:
                    self.send(_CONTINUE)
                except ClientGone:
                    self.close()
                if self._sending:  # behind an answer that fills all buffers: it is on its way, and so is the client
                    self._watch(READ | WRITE)
            if self.state is _BODY:
                self._wait_for(_BODY, worker.config.body_timeout)
            return
        if rest:
            self._rest = rest
        self._serve(request)

    def _take_body(self, data: bytes) -> None:
        body, request = self._body, self._head
        assert body is not None and request is not None
        rest = body.feed(data)
        if rest is None:
            self._body_bytes += len(data)
            limit = self.worker.config.body_timeout
            # Without progress, or too little of it in all.
            enough = self._body_began + limit + self._body_bytes / RATE
            self._until(min(self._loop.now + limit, enough))
            self._loop.now = time.monotonic()  # others wait meanwhile, some of them with their answers
            return
        self._rest = rest
        give_body(request.fields, body.spool.rewind(), body.spool.size)
        self._serve(request)

    def _stand_in_line(self, request: RequestHead, data: bytes) -> None:
        """The request is here as a whole: `data`, which goes along where a sibling is to have it."""
        complete(request, self.peer, self._trusted, self._waited)
        self._head, self._rest = request, data
        self._rest_since = self._loop.now - self._waited
        self._loop.line.append(self)

    def turn(self) -> None:
        """It has stood in line."""
        request = self._head
        if request is None:
            return  # a sibling has it by now, or its client has gone
        self._rest = b""
        waited = self._loop.now - self._rest_since
        if waited > AWAY:
            self._waited = waited
            if not self._is_there():
                return
            complete(request, self.peer, self._trusted, self._waited)
        self._run(request)

    def _serve(self, request: RequestHead) -> None:
        complete(request, self.peer, self._trusted, self._waited)
        self._run(request)

    def _run(self, request: RequestHead) -> None:
        self.state = _SERVING
        self._waited = 0.0
        if self._trusted is not None:
            self.label = request.fields["REMOTE_ADDR"].encode("latin-1", "replace") + b"\n"
        service = self.worker.service
        keep_alive = service.serve(self, request)
        self._loop.now = service.ended
        if self._body is not None:
            self._body.spool.close()
            self._body = None
        self._head = None
        if self._sending is None and keep_alive and self.state is not _CLOSED:
            self._rest_or_wait()
        else:
            self._expects_more = request.keep_alive
            self._answered(keep_alive)

    def _invite(self) -> None:
        """There is room for the rest of `100 Continue`."""
        try:
            if self._sending:
                self._sending.flush()
        except OSError:
            self.close()
            return
        if not self._sending:
            self._watch(READ)

    def _ended(self) -> None:
        """The client has closed its side."""
        if self.state in (_HEAD, _BODY):
            # RFC 9112 section 8: an incomplete request is no request.
            self._refuse(HttpError(400, "the client closed in the middle of a request"))
        else:
            self.close()

    # -- what becomes of an answer -------------------------------------------------------------------------------------

    def _answered(self, keep_alive: bool) -> None:
        if self.state is _CLOSED:
            return
        if self._sending:
            self._sending.goes_on = keep_alive
            self._sending.took(self._loop.now)
            self._watch(WRITE)
            self._wait_for(_SENDING, self.worker.config.send_timeout / LOOKS)
            return
        self._sent(keep_alive)

    def _flush(self) -> None:
        sending = self._sending
        assert sending is not None
        try:
            count = sending.flush()
        except OSError:
            self.close()
            return
        self._loop.now = time.monotonic()  # as with a piece of a body
        if not sending:
            self._sent(sending.goes_on)
        elif count:
            sending.took(self._loop.now)

    def _still_takes(self, now: float) -> bool:
        assert self._sending is not None
        left = self._sending.look(now)
        self._until(now + min(left, self.worker.config.send_timeout / LOOKS))
        return left > 0

    def _sent(self, keep_alive: bool) -> None:
        self._all_sent()
        if not keep_alive:
            # What it sent behind this request is not served any more; closing on it unread would reset the answer.
            if self._rest or self._expects_more:
                self._linger()
            else:
                self.close()
            return
        self._rest_or_wait()

    def _rest_or_wait(self) -> None:
        """The answer is out: what comes next? (Nearly every request comes by here: no call that is not needed.)"""
        self.state = _IDLE
        loop, worker = self._loop, self.worker
        deadline = self.deadline = loop.now + worker.idle_seconds
        if deadline < self.queued:
            loop.expect(self)
        if self._interest != READ:
            self._watch(READ)
        if self._rest:
            self._rest_since = loop.now
            worker.later.append(self)

    def next(self) -> None:
        """Serve what came together with the request before."""
        rest, self._rest = self._rest, b""
        if rest and self.state is _IDLE:
            self._waited = max(0.0, self._loop.now - self._rest_since)
            if self._waited <= AWAY or self._is_there():
                self._take(rest)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _refuse(self, error: HttpError) -> None:
        """Answer and close; not one byte behind the error is parsed (RFC 9112 section 2.2)."""
        self.worker.service.refused(self, self._head, error)
        head_only = self._head is not None and self._head.method == "HEAD"
        self._drop_request()
        self._rest = b""
        try:
            self.send(error_response(error.status, head_only=head_only))
        except ClientGone:
            self.close()
            return
        if self._sending:
            self._sending.goes_on = False
            self._watch(WRITE)
            self._wait_for(_SENDING, LINGER_SECONDS)
        else:
            self._linger()

    def _linger(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._rest = b""
        self._watch(READ)
        # A server that stops does not wait for who has been told.
        self._wait_for(_LINGERING, min(LINGER_SECONDS, self.worker.idle_seconds or LINGER_SECONDS))

    def leave(self, soon: float) -> None:
        """The worker goes: a client of whom nothing, or half a head, is here has `soon` seconds; a body is awaited."""
        if self.idle or self.state is _HEAD:
            self._until(min(self.deadline, self._loop.now + soon))

    def broken(self) -> None:
        self.close()

    def forget(self) -> None:
        """What is known of it from the request before."""
        if self._repeats:
            self._repeats = Repeats()

    def close(self) -> None:
        if self.state is _CLOSED:
            return
        self.state = _CLOSED
        self.deadline = FOREVER
        self._drop_request()
        self.give_up()
        self._loop.release(self)
        if self._interest:
            self._loop.forget(self.fd)
        self.sock.close()
        self.worker.closed(self)

    def _drop_request(self) -> None:
        self._partial = None
        self._head = None
        if self._body is not None:
            self._body.spool.close()
            self._body = None

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """A connection that sent nothing yet: into the loop."""
        if self.state is not _CLOSED and not self._interest:
            self._watch(READ)
            if self.state is _IDLE:
                self._wait_for(_IDLE, self.worker.config.keep_alive or self.worker.config.header_timeout)

    def _watch(self, mask: int) -> None:
        if self._interest != mask:
            if self._interest:
                self._loop.change(self.fd, mask)
            else:
                self._loop.watch(self.fd, self, mask)
            self._interest = mask

    def _wait_for(self, state: State, seconds: float) -> None:
        self.state = state
        self._until(self._loop.now + seconds)

    def _until(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.queued:
            self._loop.expect(self)
