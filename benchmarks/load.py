"""wrk: the load, and what it saw."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from benchmarks.cores import cores

HEADERS = ("constant", "varying")
CONNECTIONS = {"keepalive": "keep-alive", "close": "close"}  # our word: the header's

_SCRIPTS = Path(__file__).resolve().parent / "wrk"


class LoadError(Exception):
    """There is no load to be had, and why."""


class Load(NamedTuple):
    """Latencies in seconds, of all requests; `errors` counts sockets' errors and answers of status 400 and more."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: dict[str, int]


def require_wrk() -> None:
    """Raises `LoadError` with the remedy."""
    if not shutil.which("wrk"):
        raise LoadError("wrk is not here, and nothing can be measured without it: apt-get install wrk")


def run(port: int, target: str, *, headers: str, connection: str, connections: int, seconds: int) -> Load:
    """Requests on `connections` connections for `seconds` (whole: wrk takes no others). Raises `LoadError`."""
    command = [
        *(*cores().load, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"),
        *("-s", "browser.lua", f"http://127.0.0.1:{port}{target}", "--"),
        *(f"{headers}.txt", target, CONNECTIONS[connection]),
    ]
    try:
        done = subprocess.run(command, cwd=_SCRIPTS, capture_output=True, text=True, timeout=seconds + 20)
    except subprocess.TimeoutExpired:
        raise LoadError("wrk did not come to its end") from None
    for line in done.stdout.splitlines():
        word, _, result = line.partition(" ")
        if word == "RESULT":
            return _load(json.loads(result))
    raise LoadError(f"wrk failed: {(done.stderr or done.stdout).strip()[-300:]}")


def _load(result: dict[str, int]) -> Load:
    kinds = ("connect", "read", "write", "timeout", "status")
    return Load(
        requests=result["requests"],
        seconds=result["microseconds"] / 1e6,
        p50=result["p50"] / 1e6,
        p99=result["p99"] / 1e6,
        errors={kind: result[kind] for kind in kinds if result[kind]},
    )
