"""Litters: circles of objects that only the collector takes away; and knows when that came."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

within = False
collected = {"within": 0, "between": 0}


def note(phase: str, info: dict[str, int]) -> None:
    if phase == "start":
        collected["within" if within else "between"] += 1


gc.callbacks.append(note)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    global within
    within = True
    kept = []
    for _ in range(int(parse_qs(environ["QUERY_STRING"])["circles"][0])):
        circle: list[Any] = []
        circle.append(circle)
        kept.append(circle)
    answer = {**collected, "left": len(gc.get_objects())}
    start_response("200 OK", [("Content-Type", "application/json")])
    within = False
    return [json.dumps(answer).encode()]
