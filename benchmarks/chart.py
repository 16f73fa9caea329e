"""python -m benchmarks.chart RESULTS.json CHART.svg, inside the environment: one panel for each comparison."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import FLOOR
from benchmarks.servers import OURS

_OURS, _OTHER, _FAULTY, _FLOOR = "#0c4b33", "#a3b8b0", "#e4e4e4", "#44b78b"
_ROW_INCHES = 0.26


def main() -> None:
    source, chart = map(Path, sys.argv[1:])
    document = json.loads(source.read_text())
    # Text stays text: it can be searched and read aloud, and the file is small.
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "benchmarks"})
    figure = draw(document)
    chart.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(chart, metadata={"Date": None} if chart.suffix == ".svg" else None)


def draw(document: dict[str, Any]) -> Figure:
    comparisons = document["comparisons"]
    heights = [len(comparison["rows"]) + 3 for comparison in comparisons]
    figure = Figure(figsize=(8, sum(heights) * _ROW_INCHES + 0.4), layout="constrained")
    panels = figure.subplots(len(comparisons), 1, squeeze=False, height_ratios=heights)
    for axes, comparison in zip(panels[:, 0], comparisons, strict=True):
        _panel(axes, comparison)
    machine = document["machine"]
    figure.supxlabel(
        f"CPU microseconds for one request, user and system, all processes of the server; bar: median, line: spread\n"
        f"{machine['cpu']}, Python {machine['python']}, Django {document['versions']['django']}",
        fontsize=8,
    )
    return figure


def _panel(axes: Axes, comparison: dict[str, Any]) -> None:
    rows = sorted(comparison["rows"], key=lambda row: (bool(row["verdict"]["faults"]), row["cpu"]))
    names = [f"{row['name']} {row['version']}".strip() for row in rows]
    costs = [row["cpu"] * 1e6 for row in rows]
    below = [(row["cpu"] - row["spread"][0]) * 1e6 for row in rows]
    above = [(row["spread"][1] - row["cpu"]) * 1e6 for row in rows]
    bars = axes.barh(names, costs, color=[_color(row) for row in rows], xerr=[below, above], error_kw={"lw": 0.8})
    axes.bar_label(bars, labels=[_label(row) for row in rows], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.35)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(comparison["title"], loc="left", fontsize=9, fontweight="bold")


def _color(row: dict[str, Any]) -> str:
    if row["verdict"]["faults"]:
        return _FAULTY
    return {FLOOR: _FLOOR}.get(row["name"], _OURS if row["name"].startswith(OURS) else _OTHER)


def _label(row: dict[str, Any]) -> str:
    faults = row["verdict"]["faults"]
    return f"{row['cpu'] * 1e6:.0f}" + (f" (no comparison: {'; '.join(faults)})" if faults else "")


if __name__ == "__main__":
    main()
