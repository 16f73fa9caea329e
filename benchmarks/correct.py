"""Whether a server does what its row is measured for: a peer that leaves work out is no comparison."""

from __future__ import annotations

import http.client
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.applications import PROBES, Application
from benchmarks.processes import Running
from benchmarks.servers import Server

_REQUESTS = 20
_KEPT = 5
_PATIENCE = 2.0


class Verdict(NamedTuple):
    """`faults` take a row out of the comparison, `remarks` only explain it."""

    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def check(server: Server, application: Application, connection: str, folder: Path) -> Verdict:
    """What there is to say of `server` before its row counts. Raises `StartError`."""
    faults: list[str] = []
    remarks: list[str] = []
    with server.serve(application, folder) as running:
        if not _answers(running, application):
            faults.append("wrong answer")
        elif connection == "keepalive":
            if closing := _closing(running, application):
                remarks.append(closing)
            elif not _serves_beside_idle(running, application):
                faults.append("an idle connection blocks all others")
        elif not _closes_when_asked(running, application):
            faults.append("ignores Connection: close")
    with server.serve(PROBES[application.probe], folder) as running:
        closed = _closed(running)
    if closed < _REQUESTS:
        words = f"calls close() on {closed} of {_REQUESTS} results"
        if application.needs_close:
            faults.append(words)
        else:
            remarks.append(f"{words}: no comparison on Django")
    return Verdict(tuple(faults), tuple(remarks))


def _answers(running: Running, application: Application) -> bool:
    connection = running.connection()
    try:
        status, body = _get(connection, application.target)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status == 200 and application.expect in body


def _closing(running: Running, application: Application) -> str:
    """How it ends a connection that the client wants to keep; an empty text if it does not."""
    connection = running.connection()
    try:
        for _ in range(_KEPT):
            _get(connection, application.target)
            connection.auto_open = 0  # or http.client would quietly make a second connection
    except http.client.NotConnected:
        return "closes after each answer"
    except (OSError, http.client.HTTPException):
        return "closes after each answer and does not say so: wrk's read errors"
    finally:
        connection.close()
    return ""


def _serves_beside_idle(running: Running, application: Application) -> bool:
    """One worker that waits on one kept connection for its next request would starve 15 of wrk's 16."""
    idle, other = running.connection(), running.connection(_PATIENCE)
    try:
        _get(idle, application.target)
        return _get(other, application.target)[0] == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        idle.close()
        other.close()


def _closes_when_asked(running: Running, application: Application) -> bool:
    connection = running.connection(_PATIENCE)
    try:
        connection.request("GET", application.target, headers={"Host": "localhost", "Connection": "close"})
        sock = connection.sock
        answer = connection.getresponse()
        answer.read()
        # http.client lets go of the socket on the server's word alone; only the end of the stream is the deed.
        return sock is not None and (sock.fileno() < 0 or sock.recv(1) == b"")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _closed(running: Running) -> int:
    """How many of `_REQUESTS` results the server closed; it may do so a moment after the answer."""
    for _ in range(_REQUESTS):
        _get(running.connection(), "/", close=True)
    asked = 0
    deadline = time.monotonic() + _PATIENCE
    while True:
        count = int(_get(running.connection(), "/closed", close=True)[1])
        # The questions are requests too, and so is the one that `serve` waited with.
        closed = max(0, count - asked - 1)
        if closed >= _REQUESTS or time.monotonic() > deadline:
            return min(closed, _REQUESTS)
        asked += 1
        time.sleep(0.05)


def _get(connection: http.client.HTTPConnection, target: str, *, close: bool = False) -> tuple[int, bytes]:
    try:
        wish = "close" if close else "keep-alive"
        connection.request("GET", target, headers={"Host": "localhost", "Connection": wish})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        if close:
            connection.close()
