"""Large bodies, one after the other on one connection: what one of them costs the server."""

from __future__ import annotations

import http.client
import time

from benchmarks import cpu
from benchmarks.processes import Running

_BUFFER = bytearray(1024 * 1024)
# Of a server that stands still (seconds).
_PATIENCE = 60.0


def cost(running: Running, target: str, *, upload: bytes | None = None, seconds: float = 0.0, least: int = 3) -> float:
    """CPU seconds for one request, over `seconds` and at least `least` requests. Raises OSError, HTTPException."""
    connection = running.connection(_PATIENCE)
    try:
        transfer(connection, target, upload)
        before = cpu.snapshot(running.pid)
        done, until = 0, time.monotonic() + seconds
        while done < least or time.monotonic() < until:
            transfer(connection, target, upload)
            done += 1
        return cpu.growth(before, cpu.snapshot(running.pid)).total / done / 1e9
    finally:
        connection.close()


def transfer(connection: http.client.HTTPConnection, target: str, upload: bytes | None = None) -> int:
    """Ask, and read the answer to its end; how many bytes its body had. Raises HTTPException if it is none of 200."""
    connection.request("GET" if upload is None else "POST", target, body=upload, headers={"Host": "localhost"})
    answer = connection.getresponse()
    total = 0
    while count := answer.readinto(_BUFFER):
        total += count
    if answer.status != 200:
        raise http.client.HTTPException(f"status {answer.status} for {target}")
    return total
