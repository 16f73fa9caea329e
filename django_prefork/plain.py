"""A server's status in plain text, for people; of what `Snapshot.as_dict()` gives."""

from __future__ import annotations

from typing import Any


def seconds(value: float | None) -> str:
    """As 12 us, 3.4 ms, 5.0 s, 2 m 5 s, 3 h 7 m, 4 d 2 h."""
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value * 1e6:.0f} us"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} m" if hours else f"{minutes} m {rest} s"


def size(count: float) -> str:
    """As 512 B, 3.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def serving(worker: dict[str, Any]) -> str:
    """What it serves, in a line; nothing if it does not. A client's words: no control characters."""
    request = worker["request"]
    if request is None:
        return ""
    parts = [request["method"], request["path"], request["view"] and f"({request['view']})"]
    parts += [request["client"] and f"for {request['client']}", request["id"] and f"id={request['id']}"]
    return " ".join(part for part in parts if part).encode("unicode_escape").decode("ascii")


def summary(told: dict[str, Any]) -> list[str]:
    """Of the whole server."""
    load, totals, answers = told["load"], told["totals"], told["totals"]["answers"]
    application, queue = told["application"], told["queue"]
    generations = ", ".join(f"gen {one['number']} {one['stage']} (pid {one['pid']})" for one in told["generations"])
    return [
        f"django-prefork {told['version']}, PID {told['pid']}, up {seconds(told['when'] - told['started'])}: "
        f"{told['state']}, {told['why']}",
        f"{generations or 'no arbiter'}; {load['workers']} workers, {load['busy']} busy, {load['waiting']} waiting, "
        f"saturation {load['saturation']:.2f}",
        f"{totals['requests']} requests, 5xx {answers['5xx']}, 4xx {answers['4xx']}, refused {totals['refused']}; "
        f"{size(totals['received'])} in, {size(totals['sent'])} out",
        f"last minute: application p50 {seconds(application['p50'])}, p95 {seconds(application['p95'])}, "
        f"p99 {seconds(application['p99'])}; queue p50 {seconds(queue['p50'])}, p95 {seconds(queue['p95'])}, "
        f"p99 {seconds(queue['p99'])}",
    ]


HEADS = ("slot", "gen", "pid", "state", "for", "requests", "conns", "queue", "private", "shared", "serving")


def cells(worker: dict[str, Any]) -> tuple[str, ...]:
    """Of one worker, under HEADS."""
    leaving = " (leaving)" if worker["leaving"] and worker["state"] != "draining" else ""
    return (
        str(worker["slot"]),
        str(worker["generation"]),
        str(worker["pid"]),
        worker["state"] + leaving,
        seconds(worker["seconds"]),
        str(worker["requests"]),
        str(worker["connections"]),
        seconds(worker["queue"]),
        size(worker["private"]) if worker["private"] else "-",
        size(worker["shared"]) if worker["shared"] else "-",
        serving(worker),
    )


def restarts(told: dict[str, Any], most: int) -> list[str]:
    """The last ones, but for those that a reload or a scaling meant."""
    found = [one for one in told["restarts"] if one["reason"] not in ("reload", "scale", "stop")]
    return [
        f"{seconds(told['when'] - one['when'])} ago: worker={one['slot']} gen={one['generation']} pid={one['pid']} "
        f"{one['reason']}: {one['text']}"
        for one in found[:most]
    ]


def table(told: dict[str, Any]) -> str:
    """A server's status."""
    rows = [HEADS, *map(cells, told["workers"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    ended = restarts(told, 5)
    return "\n".join([*summary(told), "", *lines, *(["", "ended lately:", *ended] if ended else [])])


def stacks(answer: dict[str, Any]) -> str:
    parts = [f"worker={slot}\n{text.rstrip()}" for slot, text in answer["stacks"].items()]
    parts += [f"worker={slot}\n(it gave no stacks: it is stopped, or has just ended)" for slot in answer["missing"]]
    return "\n\n".join(parts) or "There is no worker."
