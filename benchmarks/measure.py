"""One server, one application, one run: what a request costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import cpu, load
from benchmarks.applications import Application
from benchmarks.correct import Verdict
from benchmarks.servers import Server

CONNECTIONS = 16
_WARM_UP_SECONDS = 1


@dataclass(frozen=True)
class Round:
    """CPU for one request, latencies: seconds. `rate`: requests a second."""

    cpu: float
    user: float = 0.0
    system: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    rate: float = 0.0
    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)


@dataclass
class Row:
    """A server's rounds, and what its check said."""

    name: str
    version: str
    verdict: Verdict = field(default_factory=Verdict)
    rounds: list[Round] = field(default_factory=list)

    def median(self, of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, self.rounds))

    @property
    def cpu(self) -> float:
        return self.median(lambda round: round.cpu)

    @property
    def spread(self) -> tuple[float, float]:
        """The cheapest and the dearest round."""
        costs = [round.cpu for round in self.rounds]
        return min(costs), max(costs)

    @property
    def errors(self) -> dict[str, int]:
        """Of all rounds."""
        total: dict[str, int] = {}
        for round in self.rounds:
            for kind, count in round.errors.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def json(self) -> dict[str, Any]:
        verdict = self.verdict._asdict()
        return {**asdict(self), "verdict": verdict, "cpu": self.cpu, "spread": self.spread, "errors": self.errors}


@dataclass(frozen=True)
class Shape:
    """Of the requests: `headers` constant or varying, `connection` keepalive or close; `seconds` of each round."""

    headers: str
    connection: str
    seconds: int
    connections: int = CONNECTIONS
    workers: int = 1


def measure(server: Server, application: Application, shape: Shape, folder: Path) -> Round:
    """Raises `StartError`, `LoadError`."""
    with server.serve(application, folder, workers=shape.workers) as running:

        def press(seconds: int) -> load.Load:
            return load.run(
                running.port,
                application.target,
                headers=shape.headers,
                connection=shape.connection,
                connections=shape.connections,
                seconds=seconds,
            )

        press(_WARM_UP_SECONDS)
        before = cpu.snapshot(running.pid)
        seen = press(shape.seconds)
        spent = cpu.growth(before, cpu.snapshot(running.pid))
    if not seen.requests:
        raise load.LoadError(f"{server.name} answered nothing")
    return Round(
        cpu=spent.total / seen.requests / 1e9,
        user=spent.user / seen.requests / 1e9,
        system=spent.system / seen.requests / 1e9,
        p50=seen.p50,
        p99=seen.p99,
        rate=seen.requests / seen.seconds,
        requests=seen.requests,
        errors=seen.errors,
    )


def ratio(ours: Row | None, other: Row) -> float | None:
    """What ours costs, in units of what `other` does; None where there is nothing to compare."""
    if ours is None or not ours.rounds or not other.rounds or ours.verdict.faults or other.verdict.faults:
        return None
    return ours.cpu / other.cpu


def find(rows: Sequence[Row], name: str) -> Row | None:
    return next((row for row in rows if row.name == name), None)
