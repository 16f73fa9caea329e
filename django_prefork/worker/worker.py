"""A worker's life: boot, serve, drain, exit."""

from __future__ import annotations

import errno
import faulthandler
import logging
import os
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from django_prefork import process, signals
from django_prefork.config import Config
from django_prefork.http import environ
from django_prefork.http.errors import HttpError
from django_prefork.http.parser import Limits, RequestHead, RequestParser
from django_prefork.http.response import Response
from django_prefork.log import AccessLog
from django_prefork.memory import private_bytes
from django_prefork.scoreboard import Scoreboard, State
from django_prefork.worker.connection import Connection
from django_prefork.worker.handoff import Handed, Queue, Queues
from django_prefork.worker.loop import FOREVER, READ, Loop, Wakeup

logger = logging.getLogger("django_prefork")

# The signal on which all stacks are dumped, by C code that needs no GIL.
DUMP_SIGNAL = signal.SIGUSR2

# By which the Arbiter tells a worker to leave. A TERM may also come from whoever signals all processes of the server at
# once, and before the Supervisor has said what it is about: that is waited for, this long (seconds).
LEAVE_SIGNAL = signal.SIGURG
TERM_DELAY = 0.1

# An idle worker looks at the listening sockets this often (seconds), woken or not: the kernel wakes one worker for a
# connection, and if that one dies before it accepts, no other hears of it.
LOOK = 1.0
# A retiring worker tries again this often (seconds) to give away what the queue had no room for.
GIVE = 0.02
# Out of descriptors: accepting pauses this long (seconds), and this many idle connections are closed.
ACCEPT_PAUSE = 0.2
ACCEPT_ROOM = 16
# What a stopping server, and a retiring worker, give a client that keeps an idle connection (seconds).
STOP_IDLE = 0.3
RETIRE_IDLE = 2.0

# What the Arbiter's process, or a terminal, may send; by name, and none may end a worker unsaid.
_NOTED = (
    LEAVE_SIGNAL,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
)

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listening(Protocol):
    """A listening socket as it is handed to a worker; `own`: this server made it, and may shut it down for all."""

    @property
    def socket(self) -> socket.socket: ...
    @property
    def own(self) -> bool: ...
    @property
    def family(self) -> int: ...
    @property
    def bind(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> str: ...

    def close(self) -> None: ...


class Worker:
    """One process that does nothing but serve.

    `life` is the read end of the generation's pipe, `pipe` the write end to the Arbiter, `dump` the file for stacks.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        config: Config,
        listeners: Sequence[Listening],
        board: Scoreboard,
        *,
        slot: int,
        generation: int,
        life: int,
        pipe: int,
        dump: int,
        access_log: AccessLog | None,
        queues: list[list[int]],
    ) -> None:
        self.application = application
        self.config = config
        self.listeners = listeners
        self.board = board
        self.slot = slot
        self.generation = generation
        self.pid = os.getpid()
        self._life = life
        self._pipe = pipe
        self._dump = dump
        self._access_log = access_log
        self._forked = False
        #: To and from the siblings; None where the system has no such thing.
        self._queues = Queues(queues) if queues else None

        self.row = board.row(slot)
        self.loop = Loop()
        self.limits = Limits(
            config.limit_request_line,
            config.limit_request_fields,
            config.limit_request_field_size,
            config.limit_request_body,
        )
        self.parser = RequestParser(self.limits)
        self.trusted = environ.TrustedProxies(config.forwarded_allow_ips) if config.forwarded_allow_ips else None
        #: Why it leaves; empty while it serves.
        self.leaving = ""
        #: Connections that hold a next request already.
        self.later: deque[Connection] = deque()
        self.connections: set[Connection] = set()
        self._requests = 0
        self._expires_after = self._lifetime()
        lifetime = config.max_worker_lifetime * (1.0 - 0.1 * random.random())
        self._too_old_at = self.loop.now + lifetime
        self._examine_at = self.loop.now if config.max_worker_lifetime or config.max_rss else FOREVER
        self._doors: list[_Door] = []
        self._templates: dict[str, dict[str, Any]] = {}
        self._accept_again = 0.0
        self._last_complaint = 0.0
        self._keep_alive = config.keep_alive > 0
        #: How long an idle connection is kept (seconds).
        self.idle_seconds = config.keep_alive
        self._term_at = 0.0

    def _lifetime(self) -> int:
        """Requests until a successor is asked for; 0: none. Jitter, or all workers would expire at once."""
        if not self.config.max_requests:
            return 0
        jitter = self.config.max_requests_jitter
        return self.config.max_requests + (int.from_bytes(os.urandom(4)) % (jitter + 1) if jitter else 0)

    @property
    def name(self) -> str:
        return f"worker={self.slot} gen={self.generation} pid={self.pid}"

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to leave. The caller then calls `exit()`."""
        self._boot()
        loop = self.loop
        while True:
            busy = loop.wait(self._patience())
            while _noted:
                self._signal(_noted.pop(0))
            if self._term_at and loop.now >= self._term_at:
                self._term_at = 0.0
                if self.board.stopping or not self.board.draining:
                    self.leave("SIGTERM")
            for _ in range(len(self.later)):
                loop.guard(self.later.popleft(), Connection.next)
            if self.leaving:
                self._hand_over()
                if not self.connections and not self._left_behind():
                    return
            elif self._accept_again:
                self._reopen()
            elif not busy:
                self._look()
            if loop.now >= self._examine_at:
                self._examine()

    def _patience(self) -> float:
        """How long to wait for events, in seconds."""
        if self.later:
            return 0.0
        if self._term_at:
            return TERM_DELAY
        if self._accept_again:
            return ACCEPT_PAUSE
        return GIVE if self.leaving and not self._stopping else LOOK

    def _examine(self) -> None:
        """Between requests: am I too old, or too large? Asked once a second at most, since it costs a millisecond."""
        config = self.config
        self._examine_at = self.loop.now + LOOK
        if config.max_worker_lifetime and self.loop.now >= self._too_old_at:
            self.expire(f"max_worker_lifetime {config.max_worker_lifetime:g} s")
        elif config.max_rss and (private_bytes() or 0) > config.max_rss:
            self.expire(f"max_rss, {(private_bytes() or 0) / 1048576:.0f} MiB of its own")
        else:
            return
        self._examine_at = FOREVER

    def _boot(self) -> None:
        faulthandler.register(DUMP_SIGNAL, file=self._dump, all_threads=True, chain=False)
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in _NOTED:
            signal.signal(number, _note)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.register_at_fork(after_in_child=self._forked_by_application)
        signals.emit(signals.post_fork, slot=self.slot, generation=self.generation)
        self.loop.watch(read, Wakeup(lambda: os.read(read, 1024)), READ)
        self.loop.watch(self._life, _Life(self), READ)
        self._doors = [_Door(self, listener) for listener in self.listeners]
        self._templates = {door.listener.bind: door.template for door in self._doors}
        self._open()
        self.row.state(State.IDLE, time.monotonic())
        signals.emit(signals.worker_ready, slot=self.slot, generation=self.generation)
        # In this order, so that the log tells it in the order it happened.
        logger.info("%s ready", self.name)
        self.say("ready")

    def _signal(self, number: int) -> None:
        if number == LEAVE_SIGNAL:
            self.leave("told to")
        elif number in (signal.SIGTERM, signal.SIGQUIT):
            self._term_at = time.monotonic() + TERM_DELAY
        elif number == signal.SIGUSR1 and self._access_log is not None:
            self._access_log.reopen()
        # SIGINT comes to the whole process group of a terminal: the Supervisor decides.

    def say(self, words: str) -> None:
        """To the Arbiter; if that is gone, to nobody."""
        try:
            os.write(self._pipe, words.encode() + b"\n")
        except OSError:
            pass

    def leave(self, why: str) -> None:
        """Take no more connections; answer what is here; then `run()` returns."""
        stopping = self.board.stopping or not self.orderly
        if self.leaving and (self._stopping or not stopping):
            return
        self.leaving = why
        self._stopping = stopping
        self._keep_alive = self._keep_alive and not stopping and self._queues is not None
        if stopping or self._queues is None:
            self.idle_seconds = STOP_IDLE if stopping else RETIRE_IDLE
        self.row.state(State.DRAINING, time.monotonic())
        self._close(stopping)
        if stopping:
            self._say_goodbye()
        elif self._queues is None:
            for connection in list(self.connections):
                connection.leave(RETIRE_IDLE)

    def _close(self, stopping: bool) -> None:
        """Stop listening, having taken what may be ours alone to take."""
        for door in self._doors:
            self.loop.forget(door.fd)
            if stopping:
                # What the kernel has accepted for us is ours to answer; all of it, before any of it takes its time.
                waiting = door.waiting()
                if door.listener.own:
                    # For all processes at once: so the port is free while the last requests run.
                    try:
                        door.listener.socket.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass  # another worker was first
                for sock, address in waiting:
                    self.opened(sock, door, address)
            else:
                # Perhaps it was this worker that was woken for it; the others hear of later ones.
                door.accept()
            door.listener.close()
        self._doors.clear()
        for queue in self._queues or ():
            self.loop.forget(queue.reader)

    def _say_goodbye(self) -> None:
        """The server stops: the clients of all workers that are idle have a moment to notice."""
        for queue in self._queues or ():
            while (handed := queue.take()) is not None:
                self._adopt(handed)
        for connection in list(self.connections):
            # A request that has just come is served.
            if connection.idle:
                connection.receive()
            connection.leave(STOP_IDLE)

    def _left_behind(self) -> bool:
        """Whether a sibling gave something away while we said goodbye to ours: the last one must not leave it there."""
        if self._stopping:
            self._say_goodbye()
        return bool(self.connections)

    def _hand_over(self) -> None:
        """A worker that retires gives its connections to its siblings; the server's stop alone closes them."""
        if self._queues is None or self._stopping:
            return
        if self.board.stopping:
            self.leave("the server stops")
            return
        for connection in list(self.connections):
            if connection.give(self._queues) is False:
                return  # no room: at the next turn

    @property
    def orderly(self) -> bool:
        """Whether we leave because we were told to, and others go on; else the whole server ends."""
        return self.board.released(self.generation) or not self._life_ended

    _life_ended = False
    _stopping = False

    def life_ended(self) -> None:
        """The generation's pipe was closed: a retirement, or the Supervisor is gone."""
        self._life_ended = True
        self.loop.forget(self._life)
        if self.board.stopping:
            self.leave("the server stops")
        elif self.orderly:
            self.leave("retired")
        else:
            self.leave("the supervisor is gone")

    def exit(self, status: int = 0) -> None:
        """Leave the process: close what the project opened, let it flush, and end. Never returns."""
        try:
            signals.emit(signals.worker_exiting, slot=self.slot, generation=self.generation, reason=self.leaving)
            process.close_databases()
            logger.info("%s leaves: %s", self.name, self.leaving)
            process.leave(status)
        finally:
            os._exit(status or 1)

    def _forked_by_application(self) -> None:
        """In a child that the application forked: our sockets are not its own, and it must not come back to serve."""
        if self._forked:
            return  # a child of that child: its descriptors are its own
        self._forked = True
        signal.set_wakeup_fd(-1)
        self.loop.close()
        for connection in self.connections:
            connection.sock.close()
        for listener in self.listeners:
            listener.close()
        if self._queues is not None:
            self._queues.close()
        os.close(self._pipe)
        os.close(self._life)

    # -- connections ---------------------------------------------------------------------------------------------------

    def opened(self, sock: socket.socket, door: _Door, address: Any) -> None:
        sock.setblocking(False)
        peer = (address[0], str(address[1])) if door.internet else ("", "")
        connection = Connection(self, sock, peer, door.listener.bind, door.template)
        # A client mostly sends its request right behind its SYN: read before any poll.
        self._welcome(connection, b"")
        if self._stopping:
            connection.leave(STOP_IDLE)

    def _adopt(self, handed: Handed) -> None:
        """Take over a sibling's connection."""
        template = self._templates.get(handed.bind)
        if template is None:  # of a listener that a reload has ended
            template = next(iter(self._templates.values()))
        self._welcome(Connection(self, handed.sock, handed.peer, handed.bind, template), handed.data)

    def _welcome(self, connection: Connection, data: bytes) -> None:
        self.connections.add(connection)
        try:
            connection.adopt(data)
        except Exception:
            logger.exception("a mistake of the server's: please report it")
            connection.close()

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def no_descriptors(self, error: OSError) -> None:
        """Accepting would only fail again, at once and for ever: pause, and let idle clients go."""
        now = time.monotonic()
        if now - self._last_complaint >= 1.0:
            self._last_complaint = now
            logger.error("%s cannot accept: %s; raise the descriptor limit", self.name, error.strerror)
        for door in self._doors:
            self.loop.forget(door.fd)
        for queue in self._queues or ():
            self.loop.forget(queue.reader)
        self._accept_again = now + ACCEPT_PAUSE
        idle = sorted((c for c in self.connections if c.idle), key=lambda connection: connection.deadline)
        for connection in idle[:ACCEPT_ROOM]:
            connection.close()

    def _reopen(self) -> None:
        if time.monotonic() >= self._accept_again:
            self._accept_again = 0.0
            self._open()

    def _open(self) -> None:
        if self._queues is not None:
            self.loop.watch_shared(self._queues.ready.reader, _Mailbox(self, self._queues.ready))
        for door in self._doors:
            self.loop.watch_shared(door.fd, door)
        if self._queues is not None:
            self.loop.watch_shared(self._queues.idle.reader, _Mailbox(self, self._queues.idle))

    def _look(self) -> None:
        """Woken by nobody: perhaps who was woken for us died before it came."""
        for queue in self._queues or ():
            if (handed := queue.take()) is not None:
                self._adopt(handed)
        for door in self._doors:
            door.accept()

    # -- requests ------------------------------------------------------------------------------------------------------

    def serve(self, connection: Connection, request: RequestHead) -> bool:
        """Run the application for `request`; whether the connection goes on.

        This is the seam: who runs the application, and in which thread, is decided here and nowhere else.
        """
        if request.path == self.config.health_path:
            return self._health(connection, request)
        began = time.monotonic()
        self.row.begin(request.line, began)
        fields = request.fields
        keep_alive = request.keep_alive and self._keep_alive and not self.board.draining
        response = Response(request, connection, keep_alive)
        try:
            response.run(self.application, fields)
        except BaseException as error:
            # SystemExit and its kin pass Django by: no request_finished, and a transaction may be open.
            response.keep_alive = False
            process.close_databases()
            self.expire(f"the application raised {type(error).__name__}")
        if self._forked:
            os._exit(1)
        now = self.loop.now = time.monotonic()
        self._requests += 1
        if self._requests == self._expires_after:
            self.expire(f"max_requests {self._requests}")
        if self._access_log is not None:
            # Still a part of the request: a handler of the project's may hang, and must be noticed.
            self._log(connection, request, response.status, response.sent, now - began)
        self.row.end(now)
        return response.keep_alive

    def expire(self, why: str) -> None:
        """Ask for a successor; serve until it is ready."""
        self.say(f"expire {why}")

    def _health(self, connection: Connection, request: RequestHead) -> bool:
        """Answered before Django: no ALLOWED_HOSTS, no redirect, no access log."""
        ready = not (self.leaving or self.board.draining)
        response = Response(request, connection, ready and request.keep_alive and self._keep_alive)
        response.run(_ready if ready else _not_ready, request.fields)
        return response.keep_alive

    def progressed(self) -> None:
        """A streaming response produced a piece, or its client took one: the time limit begins anew."""
        self.row.progress(time.monotonic())

    def refused(self, connection: Connection, request: RequestHead | None, error: HttpError) -> None:
        """A request that never became one is in the access log too: it is what one looks for there."""
        if self._access_log is not None:
            self._log(connection, request, error.status, 0, 0.0)

    def _log(self, connection: Connection, request: RequestHead | None, status: int, sent: int, seconds: float) -> None:
        assert self._access_log is not None
        fields = request.fields if request is not None else None
        self._access_log.log(
            method=request.method if request is not None else "-",
            target=request.target if request is not None else "-",
            protocol="HTTP/1.1" if request is None or request.http11 else "HTTP/1.0",
            status=status,
            length=sent,
            duration=seconds,
            peer=fields.get("REMOTE_ADDR", connection.peer[0]) if fields is not None else connection.peer[0],
            environ=fields,
            slot=self.slot,
            generation=self.generation,
        )

    def spool_room(self, count: int) -> bool:
        """`http.body.Room`: the bound is the server's, the account each worker's own."""
        if count > 0 and self.board.spooled() + count > self.config.spool_limit:
            logger.error("spool_limit of %d bytes reached: a request body is refused", self.config.spool_limit)
            return False
        self.row.spool(count)
        return True


class _Door:
    """A listening socket, as one worker stands behind it."""

    def __init__(self, worker: Worker, listener: Listening) -> None:
        self.worker = worker
        self.listener = listener
        self.fd = listener.socket.fileno()
        self.internet = listener.family != socket.AF_UNIX
        self.template = environ.template(
            # PEP 3333: never empty. A unix socket has neither; the client's Host is what Django uses anyway.
            server_name=listener.host if self.internet else "localhost",
            server_port=listener.port if self.internet else "80",
            errors=sys.stderr,
            **{"prefork.slot": worker.slot, "prefork.generation": worker.generation},
        )

    def ready(self, mask: int) -> None:
        self.accept()

    def broken(self) -> None:
        """The log has said it."""

    def accept(self) -> bool:
        """One connection: what else waits is for whoever is idle. Whether there was one."""
        try:
            sock, address = self.listener.socket.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                self.worker.no_descriptors(error)
            # Else the client was gone before we came (ECONNABORTED), or the listener is shut down: the server stops.
            return False
        self.worker.opened(sock, self, address)
        return True

    def waiting(self) -> list[tuple[socket.socket, Any]]:
        """All that the kernel holds, accepted and not yet served."""
        found: list[tuple[socket.socket, Any]] = []
        try:
            while len(found) < self.worker.config.backlog:
                found.append(self.listener.socket.accept())
        except OSError:
            pass  # none is left, or no descriptor for it
        return found


class _Mailbox:
    """The reading end of a queue."""

    def __init__(self, worker: Worker, queue: Queue) -> None:
        self._worker = worker
        self._queue = queue

    def ready(self, mask: int) -> None:
        handed = self._queue.take()
        if handed is not None:
            self._worker._adopt(handed)

    def broken(self) -> None:
        """The log has said it."""


class _Life:
    """The generation's pipe: nothing is ever written to it, its end is the message."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def ready(self, mask: int) -> None:
        self._worker.life_ended()

    def broken(self) -> None:
        """The log has said it."""


# Signals that have come, and that the loop has not yet looked at. Not only the wake-up descriptor: an application may
# have taken that for itself (an asyncio loop does), and then the loop looks here once a second.
_noted: list[int] = []


def _note(number: int, frame: object) -> None:
    _noted.append(number)


def _ready(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
    return [b"ready\n"]


def _not_ready(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
    return [b"stopping\n"]
