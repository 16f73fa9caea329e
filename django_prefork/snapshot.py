"""The server at one moment: what there is to tell of it, and how that is read from the scoreboard.

Durations are seconds, sizes bytes, moments Unix time.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from django_prefork import __version__, counters, ends, layout
from django_prefork.counters import Counters
from django_prefork.scoreboard import Era, Reading, Scoreboard, Stage, State

# A worker whose request runs for less than this (seconds) counts as one that can take the next: it is just busy.
SOON = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """One that is being served. `limit` is how long it may take, 0 for any; `path` is without the query."""

    method: str
    path: str
    view: str
    client: str
    id: str
    age: float
    limit: float


@dataclass(frozen=True, slots=True)
class Worker:
    """One process. `answers`, bytes and hand-offs are of its slot, which other workers had before it.

    `state` is booting, idle, busy, streaming or draining, since `seconds`; `leaving`: it takes nothing more.
    `requests` is how many this process has answered in its `uptime`. `queue` is how long the last request had waited.
    `private` and `shared` are memory, 0 while it is not known.
    """

    slot: int
    generation: int
    pid: int
    state: str
    seconds: float
    leaving: bool
    request: Request | None
    requests: int
    uptime: float
    connections: int
    active: int
    queue: float
    private: int
    shared: int
    spooled: int
    answers: dict[str, int]
    refused: int
    received: int
    sent: int
    handed_out: int
    handed_in: int


@dataclass(frozen=True, slots=True)
class Generation:
    """An Arbiter that lives: `stage` is booting, ready or leaving, `workers` how many it is to have."""

    number: int
    pid: int
    stage: str
    workers: int
    uptime: float


@dataclass(frozen=True, slots=True)
class Listener:
    """`waiting` connections are in the kernel's queue, of at most `limit`; None where the kernel does not tell."""

    bind: str
    waiting: int | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Seconds that half, 95 % and 99 % of the requests took at most; None: there were none."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the server was started, over all workers there were.

    `answers` counts requests by the class of the answer ("none": the client had gone); `refused` is what was answered
    without the application. `received` and `sent` are bytes, heads and all.
    """

    requests: int
    answers: dict[str, int]
    refused: int
    received: int
    sent: int
    accepted: int
    handed_over: int


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked of the server just now.

    `workers` can take requests or serve them, `busy` do; `waiting` is what waits for them, in the kernel and between
    workers; `saturation` is (busy + waiting) / workers: from 1 on requests wait.
    """

    workers: int
    busy: int
    waiting: int
    saturation: float


@dataclass(frozen=True, slots=True)
class Restart:
    """A worker that ended: `reason` is one of `layout.REASONS`, `text` says more."""

    when: float
    slot: int
    generation: int
    pid: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole server at one moment.

    `state` is booting, ready, busy (no worker can take a request), draining or stopping, in a sentence `why`; `ready`
    is what a load balancer wants to know. `workers` are in the order of their slots, `restarts` the newest first,
    `restarted` counts them by reason. `rate` (requests a second), `application` and `queue` tell of the last minute.
    """

    when: float
    version: str
    pid: int
    started: float
    state: str
    ready: bool
    why: str
    generations: list[Generation]
    workers: list[Worker]
    listeners: list[Listener]
    totals: Totals
    load: Load
    rate: float
    application: Quantiles
    queue: Quantiles
    restarts: list[Restart]
    restarted: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Of plain types, as /status.json has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Point:
    """A part of the last hour, half a minute mostly: it ended at `when` and took `seconds`."""

    when: float
    seconds: float
    requests: int
    errors: int
    application: Quantiles
    queue: Quantiles


class Listening(Protocol):
    """A listening socket of the server's."""

    @property
    def socket(self) -> socket.socket: ...
    @property
    def bind(self) -> str: ...


# -- reading it --------------------------------------------------------------------------------------------------------


def snapshot_of(board: Scoreboard, listening: Sequence[Listening]) -> Snapshot:
    now = time.monotonic()
    eras = board.eras()
    readings = board.occupied()
    listeners = [_listener(listener) for listener in listening]
    state, why = _state(board, eras, readings, now)
    total = counters.of_all(board)
    _, seconds, lately = counters.lately(board)
    restarts = [Restart(*end) for end in ends.last(board)]
    return Snapshot(
        when=time.time(),
        version=__version__,
        pid=board.supervisor,
        started=board.started,
        state=state,
        ready=state == "ready",
        why=why,
        generations=[_generation(era, now) for era in eras],
        workers=[_worker(board, reading, now) for reading in readings],
        listeners=listeners,
        totals=_totals(total),
        load=_load(readings, listeners, total),
        rate=lately.requests / max(1.0, seconds),
        application=_quantiles(lately.application),
        queue=_quantiles(lately.queue),
        restarts=restarts,
        restarted=ends.by_reason(board),
    )


def readiness(board: Scoreboard) -> tuple[bool, str]:
    """Whether a load balancer should send requests, and why not."""
    state, why = _state(board, board.eras(), board.occupied(), time.monotonic())
    return state == "ready", why


def last_hour_of(board: Scoreboard) -> list[Point]:
    """The oldest first."""
    offset = time.time() - time.monotonic()
    return [
        Point(
            step.when + offset,
            step.seconds,
            step.counters.requests,
            step.counters.answers["5xx"],
            _quantiles(step.counters.application),
            _quantiles(step.counters.queue),
        )
        for step in counters.last_hour(board)
    ]


def _state(board: Scoreboard, eras: list[Era], readings: list[Reading], now: float) -> tuple[str, str]:
    if board.stopping:
        return "stopping", "the server stops"
    if board.draining:
        return "draining", "the server is about to stop"
    if any(era.number == 1 and era.stage is Stage.BOOTING for era in eras):
        return "booting", "not all workers have started"
    workers = [reading for reading in readings if reading.state is not State.BOOTING and not reading.leaving]
    if not workers:
        return "booting", "there is no worker"
    if not any(not reading.serves or now - reading.began < SOON for reading in workers):
        oldest = min(workers, key=lambda reading: reading.began)
        why = f"each of {len(workers)} workers is busy, with a request for {now - oldest.began:.0f} s at the longest"
        return "busy", why
    return "ready", "a worker can take a request"


def _generation(era: Era, now: float) -> Generation:
    return Generation(era.number, era.pid, era.stage.name.lower(), era.target, now - era.began)


def request_of(reading: Reading, now: float) -> Request | None:
    """What this worker serves, if it does."""
    if not reading.serves:
        return None
    method, _, rest = reading.request.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    age = max(0.0, now - reading.began)
    return Request(method, path, reading.view, reading.client, reading.request_id, age, reading.limit)


def _worker(board: Scoreboard, reading: Reading, now: float) -> Worker:
    slot = reading.slot
    counted = counters.of_slot(board, slot)
    return Worker(
        slot=slot,
        generation=reading.generation,
        pid=reading.pid,
        state=reading.state.name.lower(),
        seconds=max(0.0, now - reading.began),
        leaving=reading.leaving,
        request=request_of(reading, now),
        requests=board.requests(slot),
        uptime=now - board.clock(slot, layout.BORN),
        connections=board.word(slot, layout.CONNECTIONS),
        active=board.word(slot, layout.ACTIVE),
        queue=board.clock(slot, layout.LAST_QUEUE),
        private=board.word(slot, layout.PRIVATE),
        shared=board.word(slot, layout.SHARED),
        spooled=reading.spooled,
        answers=counted.answers,
        refused=counted.refused,
        received=counted.received,
        sent=counted.sent,
        handed_out=counted.handed_out,
        handed_in=counted.handed_in,
    )


def _totals(total: Counters) -> Totals:
    return Totals(
        requests=total.requests,
        answers=total.answers,
        refused=total.refused,
        received=total.received,
        sent=total.sent,
        accepted=total.accepted,
        handed_over=total.handed_in,
    )


def _load(readings: list[Reading], listeners: list[Listener], total: Counters) -> Load:
    workers = [reading for reading in readings if reading.state is not State.BOOTING and not reading.leaving]
    busy = sum(reading.serves for reading in workers)
    waiting = sum(listener.waiting or 0 for listener in listeners) + total.handing_over
    return Load(len(workers), busy, waiting, (busy + waiting) / max(1, len(workers)))


def _quantiles(counts: Sequence[int]) -> Quantiles:
    return Quantiles(**counters.quantiles(counts))


def _listener(listener: Listening) -> Listener:
    waiting, limit = backlog(listener.socket)
    return Listener(listener.bind, waiting, limit)


def backlog(sock: socket.socket) -> tuple[int | None, int | None]:
    """How many connections wait in a listening socket's queue, and how many may; None where the kernel does not tell.

    Linux tells of TCP alone: of a listening socket, tcp_info(7)'s `unacked` and `sacked` are these two.
    """
    if not hasattr(socket, "TCP_INFO") or sock.fileno() < 0 or sock.family == socket.AF_UNIX:
        return None, None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return None, None
    if len(info) < 32:
        return None, None
    waiting, limit = struct.unpack_from("II", info, 24)
    return waiting, limit
