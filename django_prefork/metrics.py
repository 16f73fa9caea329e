"""What the server counts and measures, in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/ and, for names and units,
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from django_prefork import counters
from django_prefork.histogram import COARSE_SIZES, COARSE_TIMES, SIZES, TIMES, cumulated
from django_prefork.scoreboard import Scoreboard
from django_prefork.snapshot import Listening, Snapshot, Worker, snapshot_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# All that a worker may be doing: each has a value at any time, or a graph of it would have holes.
_STATES = ("booting", "idle", "busy", "streaming", "draining")


class _Page:
    """One family after the other; each has its name, its help and its type once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __str__(self) -> str:
        return "\n".join([*self._lines, ""])

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]

    def one(self, name: str, kind: str, text: str, value: float) -> None:
        self.many(name, kind, text, [({}, value)])

    def many(self, name: str, kind: str, text: str, values: Iterable[tuple[Mapping[str, object], float]]) -> None:
        self._head(name, kind, text)
        for labels, value in values:
            self._lines.append(f"{name}{_labels(labels)} {_number(value)}")

    def histogram(
        self,
        name: str,
        text: str,
        counts: Sequence[int],
        bounds: Sequence[float],
        ends: Sequence[float],
        total: float,
    ) -> None:
        self._head(name, "histogram", text)
        for end, count in zip(ends, cumulated(counts, bounds, ends), strict=True):
            self._lines.append(f'{name}_bucket{{le="{_number(end)}"}} {count}')
        count = sum(counts)
        self._lines += [f'{name}_bucket{{le="+Inf"}} {count}', f"{name}_sum {_number(total)}", f"{name}_count {count}"]


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def render(board: Scoreboard, listening: Sequence[Listening]) -> str:
    """All of it, now."""
    told = snapshot_of(board, listening)
    total = counters.of_all(board)
    page = _Page()
    _server(page, told)
    _requests(page, told, total)
    _connections(page, told, total)
    _load(page, told)
    _workers(page, told.workers)
    page.many(
        "prefork_worker_exits_total",
        "counter",
        "Workers that ended, by reason: crash, killed, timeout, memory and gone are troubles.",
        [({"reason": reason}, count) for reason, count in told.restarted.items()],
    )
    return str(page)


def _server(page: _Page, told: Snapshot) -> None:
    page.many("prefork_info", "gauge", "The version that runs.", [({"version": told.version}, 1)])
    page.one("prefork_start_time_seconds", "gauge", "When the server was started, in Unix time.", told.started)
    page.one("prefork_ready", "gauge", "1 if a load balancer should send requests, else 0; as /ready.", int(told.ready))
    newest = max((generation.number for generation in told.generations), default=0)
    page.one("prefork_generation", "gauge", "Number of the newest generation: a reload adds 1.", newest)
    wanted = max((generation.workers for generation in told.generations), default=0)
    page.one("prefork_workers_wanted", "gauge", "Workers that there are to be.", wanted)
    states = Counter(worker.state for worker in told.workers)
    page.many(
        "prefork_workers",
        "gauge",
        "Worker processes, by what they do.",
        [({"state": state}, states[state]) for state in _STATES],
    )


def _requests(page: _Page, told: Snapshot, total: counters.Counters) -> None:
    page.many(
        "prefork_requests_total",
        "counter",
        'Requests that the application served, by the class of the answer; "none": the client had gone.',
        [({"code": name}, count) for name, count in told.totals.answers.items()],
    )
    page.one(
        "prefork_requests_refused_total",
        "counter",
        "Requests that the server answered without the application: malformed, too large, too late.",
        told.totals.refused,
    )
    page.histogram(
        "prefork_request_duration_seconds",
        "How long the application took for a request.",
        total.application,
        TIMES,
        COARSE_TIMES,
        total.application_seconds,
    )
    page.histogram(
        "prefork_queue_duration_seconds",
        "How long a request waited for a worker.",
        total.queue,
        TIMES,
        COARSE_TIMES,
        total.queue_seconds,
    )
    page.histogram(
        "prefork_response_size_bytes",
        "Size of the body of an answer.",
        total.response,
        SIZES,
        COARSE_SIZES,
        total.bodies,
    )
    oldest = max((worker.request.age for worker in told.workers if worker.request), default=0.0)
    page.one("prefork_oldest_request_seconds", "gauge", "Age of the oldest request that is being served.", oldest)


def _connections(page: _Page, told: Snapshot, total: counters.Counters) -> None:
    page.one("prefork_received_bytes_total", "counter", "Bytes from clients, heads and all.", total.received)
    page.one("prefork_sent_bytes_total", "counter", "Bytes for clients, heads and all.", total.sent)
    active = sum(worker.active for worker in told.workers)
    idle = max(0, sum(worker.connections for worker in told.workers) - active)
    page.many(
        "prefork_connections",
        "gauge",
        "Open connections of clients, with and without a request on them.",
        [({"state": "active"}, active), ({"state": "idle"}, idle)],
    )
    page.one("prefork_connections_accepted_total", "counter", "Connections that clients opened.", total.accepted)
    page.one(
        "prefork_handoffs_total", "counter", "Connections that one worker took over from another.", total.handed_in
    )
    page.one(
        "prefork_spooled_bytes",
        "gauge",
        "Bodies and answers that wait on disk, of at most spool_limit.",
        sum(worker.spooled for worker in told.workers),
    )


def _load(page: _Page, told: Snapshot) -> None:
    load = told.load
    known = [listener for listener in told.listeners if listener.waiting is not None]
    page.many(
        "prefork_listen_queue",
        "gauge",
        "Connections that wait in the kernel for a worker, by address.",
        [({"bind": listener.bind}, listener.waiting or 0) for listener in known],
    )
    page.many(
        "prefork_listen_queue_limit",
        "gauge",
        "Connections that may wait there.",
        [({"bind": listener.bind}, listener.limit or 0) for listener in known],
    )
    page.one(
        "prefork_waiting",
        "gauge",
        "Connections with something to do that wait for a worker, in the kernel and between workers.",
        load.waiting,
    )
    page.one(
        "prefork_busy_ratio",
        "gauge",
        "Share of the workers that serve a request just now.",
        load.busy / max(1, load.workers),
    )
    page.one(
        "prefork_saturation_ratio",
        "gauge",
        "(busy workers + what waits for them) / workers: from 1 on requests wait.",
        load.saturation,
    )
    page.one(
        "prefork_queue_p95_seconds",
        "gauge",
        "How long 95 % of the requests of the last minute waited for a worker at most.",
        told.queue.p95 or 0.0,
    )


def _workers(page: _Page, workers: Sequence[Worker]) -> None:
    def each(name: str, kind: str, text: str, values: Iterable[float]) -> None:
        page.many(name, kind, text, [({"slot": one.slot}, value) for one, value in zip(workers, values, strict=True)])

    each(
        "prefork_worker_requests_total",
        "counter",
        "Requests of each slot; one worker goes on where the one before it ended.",
        [sum(one.answers.values()) for one in workers],
    )
    each(
        "prefork_worker_request_age_seconds",
        "gauge",
        "Age of the request that a worker serves, 0 if it serves none.",
        [one.request.age if one.request else 0.0 for one in workers],
    )
    each("prefork_worker_private_bytes", "gauge", "Memory that only this worker has.", [one.private for one in workers])
    each("prefork_worker_shared_bytes", "gauge", "Memory that it shares.", [one.shared for one in workers])
