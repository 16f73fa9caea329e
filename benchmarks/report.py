"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.applications import Application
from benchmarks.environment import ROOT
from benchmarks.measure import Row, Shape, find, ratio
from benchmarks.servers import OURS

FLOOR = "no server (the floor)"


@dataclass
class Comparison:
    """All rows of one application under one shape of requests; `skipped` are those who have none, and why."""

    application: Application
    shape: Shape
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        connection = "keep-alive" if self.shape.connection == "keepalive" else "one request per connection"
        return f"{self.application.title}; {self.shape.headers} headers; {connection}"


_HEADINGS: tuple[str, ...] = (
    *("server", "CPU us/request", "spread", "user", "system", "over floor", "ours / it"),
    *("p50 ms", "p99 ms", "req/s", "errors"),
)


def table(comparison: Comparison) -> str:
    """Cheapest first; what failed its check stands below, out of the comparison."""
    ours = find(comparison.rows, OURS)
    measured = [row for row in comparison.rows if row.rounds]
    floor = find(comparison.rows, FLOOR)
    lines = [_HEADINGS]
    notes = []
    for row in sorted(measured, key=lambda row: (bool(row.verdict.faults), row.cpu)):
        notes += [f"  {row.name}: {remark}" for remark in row.verdict.remarks]
        notes += [f"! {row.name}: {fault}; no comparison" for fault in row.verdict.faults]
        lines.append(_line(row, floor, ratio(ours, row)))
    notes += [f"- {name}: {reason}" for name, reason in comparison.skipped.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    # Names to the left, figures to the right.
    aligned = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in cells).rstrip()
        for cells in (enumerate(zip(line, widths, strict=True)) for line in lines)
    ]
    rounds = max((len(row.rounds) for row in measured), default=0)
    method = f"{comparison.shape.connections} connections, 1 worker, median of {rounds} x {comparison.shape.seconds} s"
    rule = "-" * max(map(len, aligned))
    return "\n".join([comparison.title, method, "", aligned[0], rule, *aligned[1:], *notes, ""])


def _line(row: Row, floor: Row | None, ratio: float | None) -> tuple[str, ...]:
    low, high = row.spread
    name = f"{'! ' if row.verdict.faults else ''}{row.name} {row.version}".rstrip()
    cost = (name, _us(row.cpu), f"{_us(low)}-{_us(high)}")
    if row.name == FLOOR:
        return (*cost, "", "", "", _ratio(ratio), "", "", "", "")
    errors = ", ".join(f"{count} {kind}" for kind, count in row.errors.items())
    return (
        *cost,
        _us(row.median(lambda round: round.user)),
        _us(row.median(lambda round: round.system)),
        _us(row.cpu - floor.cpu) if floor and floor.rounds else "",
        _ratio(ratio),
        f"{row.median(lambda round: round.p50) * 1000:.2f}",
        f"{row.median(lambda round: round.p99) * 1000:.2f}",
        f"{row.median(lambda round: round.rate):,.0f}",
        errors or "0",
    )


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def machine() -> dict[str, Any]:
    """Where figures were made: without it they mean nothing."""
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def write_json(file: Path, comparisons: Sequence[Comparison], versions: dict[str, str]) -> None:
    document = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions,
        "units": "seconds; cpu, user and system are of one request",
        "comparisons": [_document(comparison) for comparison in comparisons],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")


def _document(comparison: Comparison) -> dict[str, Any]:
    ours = find(comparison.rows, OURS)
    return {
        "title": comparison.title,
        "application": comparison.application.name,
        "headers": comparison.shape.headers,
        "connection": comparison.shape.connection,
        "connections": comparison.shape.connections,
        "seconds": comparison.shape.seconds,
        "rows": [{**row.json(), "ours_over_it": ratio(ours, row)} for row in comparison.rows if row.rounds],
        "skipped": comparison.skipped,
    }


def results(name: str) -> Path:
    """Where a run's JSON goes unless it is told."""
    return ROOT / "benchmarks" / "results" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json"
