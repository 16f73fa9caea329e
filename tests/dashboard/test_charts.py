"""From figures to coordinates, and from what C code writes to what people read."""

from __future__ import annotations

import json
import re
import time

import django

from django_prefork.dashboard import charts, frames, picture, words
from django_prefork.dashboard.charts import Axis
from django_prefork.snapshot import Point, Quantiles
from django_prefork.worker import guard, service

NONE = Quantiles(None, None, None)


def point(when: float, p50: float | None = 0.01, p99: float | None = 0.1, requests: int = 30, errors: int = 0) -> Point:
    some = Quantiles(p50, p99, p99) if p50 else NONE
    return Point(when, 30.0, requests, errors, some, some)


def chart(points: list[Point], now: float) -> charts.Chart:
    return charts.times("x", "X", points, lambda each: each.application, Axis(points, now))


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


def test_every_line_stays_within_the_picture() -> None:
    points = [point(10_000 + 30 * step, 1e-6 * (step + 1), 50.0) for step in range(150)]  # more than an hour
    drawn = chart(points, points[-1].when + 1)
    for path in [line.path for line in (*drawn.lines, *drawn.areas)]:
        values = numbers(path)
        assert (
            values
            and all(0 <= x <= charts.WIDTH for x in values[::2])
            and all(0 <= y <= charts.HEIGHT for y in values[1::2])
        )
    assert len(drawn.levels) == len(drawn.grid) and drawn.levels[0] == "100 s" and drawn.levels[-1] == "1 µs"


def test_a_decade_is_a_level_and_a_step_as_wide_as_it_took() -> None:
    drawn = chart([point(1000.0), point(1030.0)], 1030.0)
    assert drawn.levels == ["100 ms", "10 ms"] and drawn.grid == [0.0, 100.0]
    (line,) = [line for line in drawn.lines if line.name == "p99"]
    assert line.path == "M2700 0.0 L3150 0.0 L3150 0.0 L3600 0.0" and line.now == "100 ms"
    assert Axis([point(1000.0)], 1000.0).labels == ["4 min ago", "3", "2", "1", "now"]
    assert Axis([point(1000.0)], 4500.0).labels == ["60 min ago", "45", "30", "15", "now"]


def test_a_time_without_requests_is_a_gap() -> None:
    drawn = chart([point(1000.0), point(1030.0, None), point(1060.0)], 1060.0)
    assert [line.path.count("M") for line in drawn.lines] == [2, 2, 2]
    assert [area.path.count("Z") for area in drawn.areas] == [2]


def test_nothing_is_no_mistake() -> None:
    assert chart([], 0.0).lines[0].path == "" and charts.rates([], Axis([], 0.0)).levels == ["1", "0.5", "0"]
    assert "No request" in chart([point(1000.0, None)], 1000.0).sentence
    assert charts.rows([point(1000.0, None, requests=0)])[0].application == [words.DASH] * 3


def test_requests_and_errors_are_on_one_scale() -> None:
    points = [point(1000.0, requests=3000, errors=1500), point(1030.0, requests=60)]
    drawn = charts.rates(points, Axis(points, 1030.0))
    assert drawn.levels == ["100", "50", "0"]
    errors, requests = drawn.lines
    assert numbers(errors.path)[1] == 50 and numbers(requests.path)[1] == 0
    assert "half minute" in chart(points, 1030.0).sentence and "1\u2009500 of them" in drawn.sentence


def test_what_has_just_begun_is_left_out() -> None:
    begun = Point(time.time(), 0.01, 9, 0, NONE, NONE)
    ages = [point(begun.when - 30), point(begun.when), begun]
    for points, levels in ((ages, "1"), ([begun], "10")):
        hour = picture.hour(points)
        assert hour is not None and hour.charts[2].levels[0] == levels
    assert picture.hour([]) is None


def test_the_same_in_figures_has_the_newest_first() -> None:
    rows = charts.rows([point(30.0 * step, requests=1, p99=step or 0.5) for step in range(25)])
    assert [row.requests for row in rows] == [10, 10, 5] and rows[0].application[2] == "24.0 s"


def test_stacks_are_sorted_and_the_projects_own_code_is_told_apart() -> None:
    text = f"""Thread 0x00007f01 (most recent call first):
  File "{guard.__file__}", line 70 in run
Current thread 0x00007f02 (most recent call first):
  File "{json.__file__}", line 1 in loads
  File "/srv/shop/views.py", line 12 in cart
  File "{django.__file__}", line 5 in inner
  File "{service.__file__}", line 9 in serve
  File "/srv/shop/manage.py", line 3 in main
  <something new>
"""
    main, other = frames.threads(text)
    assert [frame.own for frame in main.frames] == [False, True, False]
    assert [frame.file for frame in main.frames] == ["json/__init__.py", "/srv/shop/views.py", "django/__init__.py"]
    assert [frame.function for frame in main.server] == ["serve", "main"] and main.rest == ["  <something new>"]
    assert frames.threads(f'  File "{__file__}", line 1 in x')[0].frames[0].file == "tests/dashboard/test_charts.py"
    assert (main.name, other.name) == ("main thread", "the server's guard")
    assert frames.threads("") == [] and frames.threads("?\n")[0].rest == ["?"]
