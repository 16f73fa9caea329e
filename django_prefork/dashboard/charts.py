"""The last hour as lines: from figures to coordinates. Pure; what is drawn with them stands in the templates.

A chart is 3600 wide and 100 high, from the top. It is stretched to the place it has; so there is no text in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django_prefork.dashboard.words import duration, number
from django_prefork.snapshot import Point, Quantiles

WIDTH, HEIGHT = 3600.0, 100.0
# How much of the hour is shown (seconds), of a server that has not run for all of it.
_SPANS = (240.0, 720.0, 1200.0, 2400.0, 3600.0)
# What is further apart than this is not joined: nothing was noted down in between.
_GAP = 2.0
_NAMES = ("p50", "p95", "p99")
# Rows of the table that says the same: so many points of half a minute to one.
_TOGETHER = 10

# A stretch of the hour, and what is drawn over it; None: nothing is.
_Run = list[tuple[float, float, float | None]]


class Axis:
    """Where a moment lies. `labels` are evenly apart, from the left."""

    def __init__(self, points: Sequence[Point], now: float) -> None:
        self.now = now
        oldest = max((now - point.when + point.seconds for point in points), default=0.0)
        self.span = next((span for span in _SPANS if span >= oldest), _SPANS[-1])
        quarter = self.span / 240
        self.labels = [f"{4 * quarter:g} min ago", *(f"{quarter * count:g}" for count in (3, 2, 1)), "now"]

    def ends(self, point: Point) -> tuple[float, float]:
        right = self.span - (self.now - point.when)
        return self._place(right - point.seconds), self._place(right)

    def _place(self, seconds: float) -> float:
        return round(WIDTH * min(1.0, max(0.0, seconds / self.span)), 1)


@dataclass(frozen=True, slots=True)
class Line:
    """`path` as SVG has it; `now` is the last figure, for the legend."""

    name: str
    path: str
    now: str


@dataclass(frozen=True, slots=True)
class Hint:
    """What is said of one step when it is pointed at."""

    x: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """`levels` are what the horizontal lines mean, evenly apart, from the top; `grid` where they are."""

    key: str
    title: str
    sentence: str
    summary: str
    levels: list[str]
    grid: list[float]
    areas: list[Line]
    lines: list[Line]
    hints: list[Hint]


@dataclass(frozen=True, slots=True)
class Row:
    """Some minutes of the table; of the percentiles the worst."""

    since: str
    requests: int
    errors: int
    application: list[str]
    queue: list[str]


def times(key: str, title: str, points: Sequence[Point], of: Callable[[Point], Quantiles], axis: Axis) -> Chart:
    """How long something took: percentiles over a logarithmic scale, a decade to a line."""
    known = [value for point in points for value in (of(point).p50, of(point).p95, of(point).p99) if value]
    low = math.floor(math.log10(min(known, default=0.001)))
    high = max(low + 1, math.ceil(math.log10(max(known, default=0.1))))

    def y(value: float | None) -> float | None:
        return None if value is None else HEIGHT * (high - math.log10(max(value, 10.0**low))) / (high - low)

    def over(name: str) -> _Run:
        return _run(points, lambda point: y(getattr(of(point), name)), axis)

    last = of(points[-1]) if points else Quantiles(None, None, None)
    runs = {name: over(name) for name in _NAMES}
    lines = [Line(name, _line(run), duration(getattr(last, name))) for name, run in runs.items()]
    worst = max(points, key=lambda point: of(point).p99 or 0.0, default=None)
    sentence = "No request in the last hour."
    if worst is not None and of(worst).p99:
        sentence = f"The worst half minute: p99 {duration(of(worst).p99)}, {_ago(axis.now - worst.when)}."
    hints = [_hint(point, axis, _quantiles(of(point)), point.requests) for point in points]
    return Chart(
        key,
        title,
        sentence,
        f"{title}. In the last half minute {_quantiles(last)}. {sentence}",
        [_decade(decade) for decade in range(high, low - 1, -1)],
        [HEIGHT * step / (high - low) for step in range(high - low + 1)],
        [Line("spread", _band(runs["p99"], runs["p50"]), "")],
        lines,
        hints,
    )


def rates(points: Sequence[Point], axis: Axis) -> Chart:
    """Requests a second, and how many of them failed."""
    most = _nice(max((_rate(point.requests, point) for point in points), default=0.0))

    def y(count: int, point: Point) -> float:
        return HEIGHT * (1 - _rate(count, point) / most)

    floor = _run(points, lambda point: HEIGHT, axis)
    requests = _run(points, lambda point: y(point.requests, point), axis)
    errors = _run(points, lambda point: y(point.errors, point) if point.errors else None, axis)
    total, failed = sum(point.requests for point in points), sum(point.errors for point in points)
    last = points[-1] if points else None
    rate, wrong = (_rate(last.requests, last), _rate(last.errors, last)) if last else (0.0, 0.0)
    sentence = f"{number(total)} requests, {number(failed) if failed else 'none'} of them answered with 5xx."
    return Chart(
        "rate",
        "Requests a second",
        sentence,
        f"Requests a second. In the last half minute {_figure(rate)}. {sentence}",
        [_figure(most), _figure(most / 2), "0"],
        [0.0, HEIGHT / 2, HEIGHT],
        [Line("all", _band(requests, floor), ""), Line("errors", _band(errors, floor), "")],
        [Line("5xx", _line(errors), f"{_figure(wrong)}/s"), Line("all", _line(requests), f"{_figure(rate)}/s")],
        [
            _hint(point, axis, f"{_rate(point.requests, point):.3g} requests/s, {point.errors} failed")
            for point in points
        ],
    )


def rows(points: Sequence[Point]) -> list[Row]:
    """The same in figures, the newest first."""
    found = []
    for end in range(len(points), 0, -_TOGETHER):
        some = points[max(0, end - _TOGETHER) : end]
        found.append(
            Row(
                time.strftime("%H:%M", time.gmtime(some[0].when - some[0].seconds)),
                sum(point.requests for point in some),
                sum(point.errors for point in some),
                _worst([point.application for point in some]),
                _worst([point.queue for point in some]),
            )
        )
    return found


# -- small things ------------------------------------------------------------------------------------------------------


def _rate(count: int, point: Point) -> float:
    return count / max(1.0, point.seconds)


def _decade(exponent: int) -> str:
    """As 10 µs, 1 ms, 100 s."""
    unit, zeros = ("s", exponent) if exponent >= 0 else ("ms", exponent + 3) if exponent >= -3 else ("µs", exponent + 6)
    return f"{10**zeros} {unit}"


def _worst(some: Sequence[Quantiles]) -> list[str]:
    return [
        duration(max((value for q in some if (value := getattr(q, name)) is not None), default=None)) for name in _NAMES
    ]


def _quantiles(some: Quantiles) -> str:
    if some.p50 is None:
        return "no request"
    return f"p50 {duration(some.p50)}, p95 {duration(some.p95)}, p99 {duration(some.p99)}"


def _ago(seconds: float) -> str:
    return "just now" if seconds < 60 else f"{seconds / 60:.0f} min ago"


def _hint(point: Point, axis: Axis, text: str, requests: int | None = None) -> Hint:
    left, right = axis.ends(point)
    more = "" if requests is None else f" ({number(requests)} requests)"
    return Hint(left, round(right - left, 1), f"{_ago(axis.now - point.when)}: {text}{more}")


def _run(points: Sequence[Point], y: Callable[[Point], float | None], axis: Axis) -> _Run:
    return [(*axis.ends(point), value) for point in points for value in [y(point)]]


def _pieces(run: _Run) -> list[list[tuple[float, float, float]]]:
    """What belongs together."""
    found: list[list[tuple[float, float, float]]] = []
    end = -math.inf
    for left, right, value in run:
        if value is None:
            end = -math.inf
        else:
            if left - end > _GAP:
                found.append([])
            found[-1].append((left, right, value))
            end = right
    return found


def _line(run: _Run) -> str:
    return " ".join(
        "M" + " L".join(f"{x:g} {value:.1f}" for left, right, value in piece for x in (left, right))
        for piece in _pieces(run)
    )


def _band(upper: _Run, lower: _Run) -> str:
    """The area between two lines that are there at the same times."""
    bottom = {left: value for left, _, value in lower}
    found = []
    for piece in _pieces(upper):
        there = [f"{x:g} {value:.1f}" for left, right, value in piece for x in (left, right)]
        back = [f"{x:g} {bottom[left]:.1f}" for left, right, _ in reversed(piece) for x in (right, left)]
        found.append("M" + " L".join(there + back) + "Z")
    return " ".join(found)


def _nice(value: float) -> float:
    """The next of 1, 2, 5, 10 ... that is not less; at least 1."""
    if value <= 1:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= value)


def _figure(value: float) -> str:
    return number(round(value)) if value >= 100 else f"{value:.2g}"
