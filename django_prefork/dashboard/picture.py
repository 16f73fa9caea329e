"""What the page shows, in the words and figures it shows it in. Pure: a snapshot goes in, the template draws it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from django_prefork.dashboard import charts
from django_prefork.dashboard.charts import Axis, Chart, Row
from django_prefork.dashboard.words import duration, number, plural, size
from django_prefork.snapshot import Generation, Load, Point, Request, Restart, Snapshot, Worker

# A request that runs for so long (seconds) is worth a look; and one that has used so much of its limit is in danger.
SLOW = 1.0
DANGER = 0.8
# To draw more workers than these takes a worker some hundredths of a second.
MANY = 100
# What took less than this (seconds) is left out of the charts.
BRIEF = 5.0
_VIEW_LENGTH = 30
# Reasons for which nobody is to blame.
_MEANT = ("expired", "reload", "scale", "stop")

_TITLES = {
    "ready": "Ready",
    "busy": "All busy",
    "booting": "Booting",
    "draining": "Draining",
    "stopping": "Stopping",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure, and what is to be said of it. `tone` is "", warn or bad."""

    name: str
    figure: str
    unit: str
    notes: list[str]
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """A worker. `tone` is what colour it has; `share` how much of its time the request has used, in percent;
    `since` is how long it does what it does."""

    worker: Worker
    tone: str
    state: str
    since: str
    mine: bool
    share: float | None
    limit: str
    answered: str
    queue: str
    private: str
    shared: str
    whose: str
    private_share: float
    shared_share: float
    title: str


@dataclass(frozen=True, slots=True)
class End:
    """A worker that has ended."""

    restart: Restart
    key: str
    ago: str
    moment: str
    meant: bool


@dataclass(frozen=True, slots=True)
class Now:
    """The server at one moment, drawn anew after `every` seconds."""

    every: int

    state: str
    title: str
    why: str
    facts: list[tuple[str, str]]
    generations: list[Generation]
    tiles: list[Tile]
    lanes: list[Lane]


@dataclass(frozen=True, slots=True)
class Past:
    """What has become of it: workers that ended, and counts by name and tone."""

    ends: list[End]
    reasons: list[tuple[str, int, bool]]
    totals: list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Hour:
    ages: list[str]
    charts: list[Chart]
    rows: list[Row]


def now(snapshot: Snapshot, mine: int | None = None) -> Now:
    """`mine` is the slot of the worker that draws this: its request is not worth a mention."""
    largest = max((worker.private + worker.shared for worker in snapshot.workers), default=0)
    lanes = [_lane(worker, worker.slot == mine, largest) for worker in snapshot.workers]
    return Now(
        every=1 if len(lanes) <= MANY else 5,
        state=snapshot.state,
        title=_TITLES[snapshot.state],
        why=snapshot.why[:1].upper() + snapshot.why[1:] + ".",
        facts=_facts(snapshot),
        generations=snapshot.generations,
        tiles=_tiles(snapshot, lanes),
        lanes=lanes,
    )


def past(snapshot: Snapshot) -> Past:
    return Past(
        ends=[_end(restart, snapshot.when) for restart in snapshot.restarts],
        reasons=[(reason, count, reason in _MEANT) for reason, count in snapshot.restarted.items() if count],
        totals=_totals(snapshot),
    )


def hour(points: Sequence[Point]) -> Hour | None:
    """None: there is nothing to tell."""
    if not points:
        return None
    # The step that has just begun has seen too little to be worth a figure.
    if len(points) > 1 and points[-1].seconds < BRIEF:
        points = points[:-1]
    axis = Axis(points, time.time())
    return Hour(
        axis.labels,
        [
            charts.times("application", "Time in the application", points, lambda point: point.application, axis),
            charts.times("queue", "Wait for a worker", points, lambda point: point.queue, axis),
            charts.rates(points, axis),
        ],
        charts.rows(points),
    )


# -- its parts ---------------------------------------------------------------------------------------------------------


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    return [
        ("PID", str(snapshot.pid)),
        ("up", duration(snapshot.when - snapshot.started)),
        *(("listens on", listener.bind) for listener in snapshot.listeners),
        ("version", snapshot.version),
    ]


def _tiles(snapshot: Snapshot, lanes: Sequence[Lane]) -> list[Tile]:
    load = _without(snapshot.load, lanes)
    queues = [listener for listener in snapshot.listeners if listener.waiting is not None]
    room = sum(listener.limit or 0 for listener in queues)
    application, queue = snapshot.application, snapshot.queue
    private = sum(worker.private for worker in snapshot.workers)
    shared = max((worker.shared for worker in snapshot.workers), default=0)
    full = "bad" if load.workers and load.saturation >= 2 else "warn" if load.workers and load.saturation >= 1 else ""
    wait = [f"room for {number(room)}"] if queues else ["the kernel does not tell"] if snapshot.listeners else []
    return [
        Tile(
            "Busy", str(load.busy), f"of {plural(load.workers, 'worker')}", [f"saturation {load.saturation:.2f}"], full
        ),
        Tile(
            "Waiting",
            number(load.waiting),
            "connections" if load.waiting != 1 else "connection",
            wait,
            "warn" if load.waiting else "",
        ),
        Tile(
            "Requests",
            f"{snapshot.rate:.3g}" if snapshot.rate < 100 else number(round(snapshot.rate)),
            "a second",
            [f"{number(snapshot.totals.requests)} since the start"],
        ),
        Tile(
            "Application",
            *_split(application.p95),
            [f"p50 {duration(application.p50)}", f"p99 {duration(application.p99)}"],
        ),
        Tile("Queue", *_split(queue.p95), [f"p50 {duration(queue.p50)}", f"p99 {duration(queue.p99)}"]),
        Tile("Memory", *_cut(size(private + shared)), [f"{size(private)} private", f"{size(shared)} shared"]),
    ]


def _split(p95: float | None) -> tuple[str, str]:
    figure, unit = _cut(duration(p95))
    return figure, f"{unit} p95".strip()


def _cut(text: str) -> tuple[str, str]:
    figure, _, unit = text.partition(" ")
    return figure, unit


def _without(load: Load, lanes: Sequence[Lane]) -> Load:
    """But for the request that asks."""
    mine = sum(lane.mine and lane.worker.request is not None and not lane.worker.leaving for lane in lanes)
    busy = max(0, load.busy - mine)
    return Load(load.workers, busy, load.waiting, (busy + load.waiting) / max(1, load.workers))


def _lane(worker: Worker, mine: bool, largest: int) -> Lane:
    request = worker.request
    share = None
    tone = worker.state
    if request is not None and not mine:
        share = min(100.0, round(100 * request.age / request.limit, 1)) if request.limit else None
        if share is not None and share >= 100 * DANGER:
            tone = "danger"
        elif request.age >= SLOW and worker.state == "busy":
            tone = "slow"
    elif mine and tone == "busy":
        tone = "idle"
    if worker.leaving:
        tone = "draining" if tone == "idle" else tone
    state = "this page" if mine and request is not None else worker.state
    if worker.leaving and worker.state != "draining":
        state += ", leaving"
    shown = max(1, largest)
    serving = f"{request.method} {request.path}" if request is not None and not mine else state
    return Lane(
        worker=worker,
        tone=tone,
        state=state,
        since="" if mine else duration(worker.seconds if request is None else request.age),
        mine=mine and request is not None,
        share=share,
        limit=f"{duration(request.age)} of {duration(request.limit)}" if request is not None and request.limit else "",
        answered=number(worker.requests),
        queue=duration(worker.queue if worker.requests else None),
        private=size(worker.private),
        shared=size(worker.shared),
        whose=" · ".join(_whose(request)) if request is not None else "",
        private_share=round(100 * worker.private / shown, 1),
        shared_share=round(100 * worker.shared / shown, 1),
        title=f"Worker {worker.slot}: {serving}",
    )


def _whose(request: Request) -> list[str]:
    """All else that is known of it. Of a view's name the end says most."""
    view = request.view
    while len(view) > _VIEW_LENGTH and "." in view:
        view = view.partition(".")[2]
    if view != request.view:
        view = f"\N{HORIZONTAL ELLIPSIS}{view}"
    return [*filter(None, (view, request.client, request.id and f"id {request.id}"))]


def _end(restart: Restart, when: float) -> End:
    return End(
        restart,
        f"{restart.pid}-{restart.when:.3f}",
        f"{duration(max(0.0, when - restart.when))} ago",
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(restart.when)),
        restart.reason in _MEANT,
    )


def _totals(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Name, figure, tone."""
    totals = snapshot.totals
    answers = totals.answers
    return [
        *(
            (name, number(answers[name]), "bad" if name == "5xx" and answers[name] else "")
            for name in ("2xx", "3xx", "4xx", "5xx")
        ),
        ("client gone", number(answers["none"]), ""),
        ("refused", number(totals.refused), ""),
        ("received", size(totals.received), ""),
        ("sent", size(totals.sent), ""),
        ("connections", number(totals.accepted), ""),
        ("handed over", number(totals.handed_over), ""),
    ]
