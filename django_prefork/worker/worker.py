"""A worker's life: boot, serve, drain, exit."""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import resource
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from django.core.signals import got_request_exception

from django_prefork import multiprocess, process, signals, status
from django_prefork.config import Config
from django_prefork.deadline import Clock
from django_prefork.http.environ import TrustedProxies
from django_prefork.http.parser import Limits, RequestParser
from django_prefork.http.storage import Storage
from django_prefork.log import AccessLog
from django_prefork.memory import private_bytes
from django_prefork.report import serving
from django_prefork.scoreboard import Scoreboard, State
from django_prefork.worker import naming, shortcuts
from django_prefork.worker.collector import Collector
from django_prefork.worker.connection import Connection
from django_prefork.worker.doors import PAUSE, Doors, Listening
from django_prefork.worker.guard import Guard, stack_of
from django_prefork.worker.handoff import Handed, Queues
from django_prefork.worker.loop import FOREVER, READ, Loop, Wakeup
from django_prefork.worker.service import Service
from django_prefork.worker.sharing import Sharing
from django_prefork.worker.streaming import Courier

logger = logging.getLogger("django_prefork")

# The signal on which all stacks are dumped, by C code that needs no GIL.
DUMP_SIGNAL = signal.SIGUSR2

# By which the Arbiter says that the running request is late.
LATE_SIGNAL = signal.SIGVTALRM

# By which the Arbiter tells a worker to leave. A TERM may also come from whoever signals all processes of the server at
# once, and before the Supervisor has said what it is about: that is waited for, this long (seconds).
LEAVE_SIGNAL = signal.SIGURG
TERM_DELAY = 0.1

# An idle worker looks at its doors this often (seconds), woken or not: the kernel wakes one worker for a connection,
# and if that one dies before it accepts, no other hears of it.
LOOK = 1.0
# A retiring worker tries again this often (seconds) to give away what the queue had no room for.
GIVE = 0.02
# Descriptors that connections of siblings must leave free.
SPARE_DESCRIPTORS = 32
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
        self.config = config
        self.board = board
        self.slot = slot
        self.generation = generation
        self.pid = os.getpid()
        self._listeners = listeners
        self._life = life
        self._pipe = pipe
        self._dump = dump
        self._access_log = access_log

        self.row = board.row(slot)
        self.loop = Loop()
        self.limits = Limits(
            config.limit_request_line,
            config.limit_request_fields,
            config.limit_request_field_size,
            config.limit_request_body,
        )
        self.parser = RequestParser(self.limits)
        self.trusted = TrustedProxies(config.forwarded_allow_ips)
        self.collector = Collector() if config.collect_between_requests else None
        self.clock = Clock(self.row, config.timeout, lambda: self.say("look"))
        self.service = Service(
            application,
            config,
            board,
            row=self.row,
            slot=slot,
            generation=generation,
            access_log=access_log,
            expire=self.expire,
            clock=self.clock,
        )
        self.courier = Courier()
        self.storage = Storage(config.spool_dir, self.service.spool_room)
        #: To and from the siblings; None where the system has no such thing.
        self._queues = Queues(queues) if queues else None
        extra = {"prefork.slot": slot, "prefork.generation": generation}
        self._doors = Doors(self, self.loop, listeners, self._queues, extra, config.backlog, self.row)

        #: Connections that hold a next request already.
        self.later: deque[Connection] = deque()
        self.connections: set[Connection] = set()
        # Some to spare: for the application's files, its database, and for one that comes in while this is looked at.
        self._most_connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS
        #: How long an idle connection is kept (seconds).
        self.idle_seconds = config.keep_alive
        #: Why it leaves; empty while it serves.
        self.leaving = ""
        self._stopping = False
        self._life_ended = False
        self._term_at = 0.0
        shared = self._queues is not None and config.handoff_after > 0
        self._protects = shared
        self._needs_guard = bool(config.slow_request)
        self._lacks_guard = False
        # The project's handlers of access records may block, and nobody looks then: no answer may be waiting.
        self._may_hold = access_log is None or not access_log.to_logger
        self._sharing = Sharing(self, self._doors, self._queues) if self._queues is not None else None
        self.loop.surplus = self._sharing.share if self._sharing is not None and shared else None
        lifetime = config.max_worker_lifetime * (1.0 - 0.1 * random.random())
        self._too_old_at = self.loop.now + lifetime
        self._examines = bool(config.max_worker_lifetime or config.max_rss)
        self._chores_at = self.loop.now

    @property
    def name(self) -> str:
        return f"worker={self.slot} gen={self.generation} pid={self.pid}"

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to leave. The caller then calls `exit()`."""
        self._boot()
        loop = self.loop
        collector = self.collector
        collected = False
        busy = 0
        while True:
            # Garbage is collected behind a turn without waiting, which tells whether somebody does.
            due = collector is not None and not collected and collector.due()
            # So it is with the access log, whose lines are written together.
            held = self._access_log is not None and self._access_log.hold(loop.now, busy)
            busy = loop.wait(0.0 if due or held else self._patience())
            # Never twice in a row: were there as much again at once, the worker would do nothing else.
            collected = False
            if due and collector is not None:
                collector.collect(waits=bool(busy or self.later))
                collected = True
            while _noted:
                self._signal(_noted.pop(0))
            if self._term_at and loop.now >= self._term_at:
                self._term_at = 0.0
                if self.board.stopping or not self.board.draining:
                    self.leave("SIGTERM")
            self._doors.take_left_over()
            for _ in range(len(self.later)):
                loop.guard(self.later.popleft(), Connection.next)
            if self.leaving:
                self._hand_over()
                if not self.connections and not self._left_behind():
                    return
            elif self._doors.reopen_at:
                if loop.now >= self._doors.reopen_at:
                    self._doors.open()
            elif not (busy or due or held):
                self._doors.look()
                process.close_old_databases()
            if loop.now >= self._chores_at:
                self._chores_at = loop.now + LOOK
                self._chores()

    def _chores(self) -> None:
        """Between requests, once a second at most."""
        active = 0
        for connection in self.connections:
            connection.forget()
            active += not connection.idle
        self.row.look_around(active)
        self.service.tell_given_up(self.loop.now)
        if self._examines:
            self._examine()
        if self._protects:
            self._protect()
        if self._needs_guard:
            self._needs_guard = self._guard() is None
        cork = self.loop.cork
        if cork.wanted and not cork.guarded and self._may_hold:
            cork.guarded = self._guard() is not None

    def _protect(self) -> None:
        """Let the guard hand connections on once there is a sibling that could take over."""
        if self.config.workers > 1 or len(self.board.occupied()) > 1:
            self._protects = self._guard(after=self.config.handoff_after) is None

    def _guard(self, *, after: float = FOREVER) -> Guard | None:
        """Have a guard from now on, `after` as it has it; None: there is no thread to be had."""
        guard = self.service.guard
        if guard is None:
            slow = self.config.slow_request or FOREVER
            guard = Guard(
                self._help_out, self._name_slow, self.service.answered, self._meanwhile, after=after, slow=slow
            )
            try:
                guard.start()
            except RuntimeError as error:
                if not self._lacks_guard:
                    self._lacks_guard = True
                    logger.warning("%s has no guard: %s", self.name, error)
                return None
            self.service.guard = guard
        elif after != FOREVER:
            guard.share(after)
        return guard

    def _write_log(self) -> None:
        """What waits of the access log."""
        if self._access_log is not None:
            self._access_log.flush()

    def _meanwhile(self) -> None:
        """The guard's: the turn takes long, and what was done in it must not wait for its end."""
        self.loop.cork.push()
        self._write_log()

    def _name_slow(self, age: float, frame: FrameType) -> None:
        """The guard's: the request runs for longer than slow_request."""
        what = serving(self.board.read(self.slot), time.monotonic(), f"slow_request is {self.config.slow_request:g} s")
        logger.warning("%s slow: %s\n%s", self.name, what, stack_of(frame))

    def _help_out(self) -> None:
        """The guard's: a request runs for long, and the loop stands still."""
        if self._sharing is not None and not self.board.stopping:
            self._sharing.help_out()

    def _patience(self) -> float:
        """How long to wait for events, in seconds."""
        if self.later:
            return 0.0
        if self._term_at:
            return TERM_DELAY
        if self._doors.reopen_at:
            return PAUSE
        return GIVE if self.leaving and not self._stopping else LOOK

    def _examine(self) -> None:
        """Am I too old, or too large? It costs a millisecond."""
        config = self.config
        if config.max_worker_lifetime and self.loop.now >= self._too_old_at:
            self.expire(f"max_worker_lifetime {config.max_worker_lifetime:g} s")
        elif config.max_rss and (private_bytes() or 0) > config.max_rss:
            self.expire(f"max_rss, {(private_bytes() or 0) / 1048576:.0f} MiB of its own")
        else:
            return
        self._examines = False

    def _boot(self) -> None:
        faulthandler.register(DUMP_SIGNAL, file=self._dump, all_threads=True, chain=False)
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in _NOTED:
            signal.signal(number, _note)
        signal.signal(LATE_SIGNAL, self.clock.late)
        self.clock.use()
        got_request_exception.connect(self.clock.report)
        naming.name_views(self.row, self.service.knot)
        shortcuts.take()
        status.attach(self.board, self._listeners, self.say)
        multiprocess.be_worker(self.slot)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.register_at_fork(after_in_child=self._forked_by_application)
        signals.emit(signals.post_fork, slot=self.slot, generation=self.generation)
        self.loop.watch(read, Wakeup(lambda: os.read(read, 1024)), READ)
        self.loop.watch(self._life, _Life(self), READ)
        if self._access_log is not None and self._access_log.gather(self.slot):
            self._needs_guard = True
        if self._needs_guard:
            self._needs_guard = self._guard() is None
        self._doors.open()
        if self.collector is not None:
            self.collector.start()
        self.row.state(State.IDLE, time.monotonic())
        signals.emit(signals.worker_ready, slot=self.slot, generation=self.generation)
        # In this order, so that the log tells it in the order it happened.
        logger.info("%s ready", self.name)
        self.say("ready")

    def _signal(self, number: int) -> None:
        if number == LEAVE_SIGNAL:
            # If the Supervisor has died, the Arbiter may have seen that first: then there is nobody to give clients to.
            if not self._life_ended and _has_ended(self._life):
                self.life_ended()
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

    def expire(self, why: str) -> None:
        """Ask for a successor; serve until it is ready."""
        self.say(f"expire {why}")

    def leave(self, why: str) -> None:
        """Take no more connections; answer what is here; then `run()` returns."""
        stopping = self.board.stopping or not self.orderly
        if self.leaving and (self._stopping or not stopping):
            return
        self.leaving = why
        self._stopping = stopping
        self.service.ready = False
        if stopping or self._queues is None:
            self.service.keep_alive = False
            self.idle_seconds = STOP_IDLE if stopping else RETIRE_IDLE
        self.row.state(State.DRAINING, time.monotonic())
        self._doors.close(stopping=stopping)
        if stopping:
            self._say_goodbye()
        elif self._queues is None:
            for connection in list(self.connections):
                connection.leave(RETIRE_IDLE)

    def _say_goodbye(self) -> None:
        """The server stops: the clients of all workers that are idle have a moment to notice."""
        self._doors.empty_queues()
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
            self.service.tell_given_up(FOREVER)
            self._write_log()
            signals.emit(signals.worker_exiting, slot=self.slot, generation=self.generation, reason=self.leaving)
            process.close_databases(pools=True)
            logger.info("%s leaves: %s", self.name, self.leaving)
            process.leave(status)
        finally:
            os._exit(status or 1)

    def _forked_by_application(self) -> None:
        """In a child that the application forked: our sockets are not its own, and it must not come back to serve."""
        if self.service.forked:
            return  # a child of that child: its descriptors are its own
        self.service.forked = True
        self.courier.forked()
        status.attach(self.board, ())
        signal.set_wakeup_fd(-1)
        self.loop.close()
        for connection in self.connections:
            connection.sock.close()
        for listener in self._listeners:
            listener.close()
        if self._queues is not None:
            self._queues.close()
        os.close(self._pipe)
        os.close(self._life)

    # -- connections ---------------------------------------------------------------------------------------------------

    def welcome(self, handed: Handed, template: dict[str, Any]) -> None:
        """Part of `doors.Taker`."""
        connection = Connection(self, handed.sock, handed.peer, handed.bind, template)
        self.connections.add(connection)
        self.row.connections(len(self.connections))
        try:
            # A client mostly sends its request right behind its SYN: read before any poll.
            connection.adopt(handed.data, handed.since)
        except Exception:
            logger.exception("a mistake of the server's: please report it")
            connection.close()
        if self._stopping:
            connection.leave(STOP_IDLE)

    def has_room(self) -> bool:
        """Part of `doors.Taker`."""
        return len(self.connections) < self._most_connections

    def has_idle_siblings(self) -> bool:
        """Part of `doors.Taker`."""
        return bool(self.board.idle_siblings(self.slot, self.loop.now))

    def make_room(self, count: int) -> None:
        """Part of `doors.Taker`: the clients that have been idle for longest go."""
        idle = sorted((c for c in self.connections if c.idle), key=lambda connection: connection.deadline)
        for connection in idle[:count]:
            # Unless its request has just come.
            if not connection.receive():
                connection.close()

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.row.connections(len(self.connections))


def _has_ended(life: int) -> bool:
    """Whether the generation's pipe was closed."""
    poll = select.poll()
    poll.register(life, select.POLLIN)
    return bool(poll.poll(0))


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
