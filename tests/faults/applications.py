"""WSGI applications that do what an application should not."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

StartResponse = Callable[..., Any]
Environ = dict[str, Any]

# The test reads what the server says to its end.
_QUIET: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
_open: list[int] = []


def trouble(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`/` says who answers, and the `?id=` it was asked with; the rest is trouble."""
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    more: dict[str, Any] = {}
    if path == "/sleep":
        os.write(2, b"sleeping\n")
        time.sleep(float(query["s"]))
    elif path == "/segv":
        ctypes.string_at(1)
    elif path == "/abort":
        os.abort()
    elif path == "/open":
        # Without `&still=` the request fails when there are no more.
        with contextlib.suppress(OSError) if "still" in query else contextlib.nullcontext():
            for _ in range(int(query["n"])):
                _open.append(os.open(os.devnull, os.O_RDONLY))
    elif path == "/close":
        while _open:
            os.close(_open.pop())
    elif path == "/subprocess":
        more["status"] = [subprocess.run(["sh", "-c", f"exit {n}"], check=False).returncode for n in range(5)]
    elif path == "/child":
        # Careless: it inherits all that may be inherited, and outlives the server.
        child = subprocess.Popen(["sleep", "60"], close_fds=False, start_new_session=True, **_QUIET)
        more["child"] = child.pid
        child.returncode = 0  # nobody waits for it, and no ResourceWarning says so
    elif path == "/upload":
        more["size"] = len(environ["wsgi.input"].read())
    elif path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (bytes([65 + n % 26]) * 10_007 for n in range(200))
    answer = json.dumps({"pid": os.getpid(), "id": query.get("id"), **more}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def database(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Which files of the database, that was open before the fork, the worker holds."""
    folder = Path("/proc/self/fd")
    held = [name for name in (os.readlink(fd) for fd in folder.iterdir() if fd.exists()) if "sqlite" in name]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(held).encode()]


def _moody(**_: object) -> None:
    """A worker boots as the file says: "die", "hang", or, when it says nothing, well."""
    mood = Path(os.environ["TEST_MOOD"]).read_text()
    if mood == "die":
        os._exit(9)
    if mood == "hang":
        time.sleep(60)


def __getattr__(name: str) -> Any:
    """`moody`: see there; `preloaded`: has a database open before the fork."""
    if name == "moody":
        from django_prefork import signals

        signals.post_fork.connect(_moody)
        return trouble
    if name == "preloaded":
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        print("a database is open", file=sys.stderr, flush=True)
        return database
    raise AttributeError(name)
