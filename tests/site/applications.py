"""WSGI applications that a test has served."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from django_prefork.http.repeats import Repeats

StartResponse = Callable[..., Any]
Environ = dict[str, Any]


def hello(environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"hello\n"]


def echo(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Says exactly what the server handed over."""
    length = environ.get("CONTENT_LENGTH")
    body = environ["wsgi.input"].read(int(length)) if length else environ["wsgi.input"].read()
    answer = json.dumps(
        {
            "echo": 1,
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
            "query": environ["QUERY_STRING"],
            "body": body.decode("latin-1"),
            "short": bool(length) and len(body) < int(length or 0),
            "env": {key: value for key, value in environ.items() if isinstance(value, str)},
        }
    ).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def work(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`/pid`, `/sleep?s=1`, `/spin` (for ever, in Python), `/regex` (in C, with the GIL), `/exit?status=3`, ..."""
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    if path == "/sleep":
        os.write(2, b"sleeping\n")  # one write: workers say it at once
        time.sleep(float(query["s"]))
    elif path == "/burn":  # in Python, which gives the GIL up
        end = time.monotonic() + float(query["s"])
        while time.monotonic() < end:
            pass
    elif path == "/sqlite":  # in C code that gives the GIL up while it waits
        import sqlite3

        connection = sqlite3.connect(":memory:")
        connection.create_function("snooze", 1, lambda seconds: time.sleep(seconds))
        connection.execute("SELECT snooze(?)", (float(query["s"]),)).fetchall()
        connection.close()
    elif path == "/spin":
        while True:
            pass
    elif path == "/regex":
        re.match(r"(a+)+$", "a" * 64 + "b")
    elif path == "/exit":
        os._exit(int(query["status"]))
    elif path == "/raise":
        raise RuntimeError("as asked")
    elif path == "/system-exit":
        raise SystemExit(4)
    answer = json.dumps(
        {
            "pid": os.getpid(),
            "slot": environ.get("prefork.slot"),
            "generation": environ.get("prefork.generation"),
            "id": query.get("id"),
            "waited": environ.get("prefork.queue_time"),
        }
    ).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def orphan(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Leaves a grandchild behind whose parent ends before it."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            time.sleep(0.3)
        os._exit(0)
    os.waitpid(child, 0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"forked\n"]


def forks(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """A child that comes back from the view like its parent."""
    answer = b"child\n" if os.fork() == 0 else b"parent\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer]


def descriptors(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """What a subprocess of the application finds open."""
    script = (
        "import json, os; folder = '/proc/self/fd/'; names = [folder + n for n in os.listdir(folder)];"
        "print(json.dumps([os.readlink(name) for name in names if os.path.lexists(name)]))"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, close_fds=False, check=True).stdout
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer]


def soak(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Reads what it is sent and says how much that was; `/stream` answers in pieces, `/slow` takes its time."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.05)
    size = 0
    for line in iter(lambda: environ["wsgi.input"].read(65536), b""):
        size += len(line)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stream":
        return (b"piece\n" * 100 for _ in range(20))
    return [str(size).encode()]


def digest(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Says of each request whose it was and what it sent, and takes as long as it asks for."""
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    body = hashlib.sha256(environ["wsgi.input"].read()).hexdigest()
    time.sleep(float(query.get("s", 0)))
    answer = json.dumps({"id": query["id"], "sha256": body, "pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


_eaten: list[bytearray] = []


def hungry(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Keeps `?mib=` of memory for ever, and then sleeps for `&sleep=` seconds."""
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    ballast = bytearray(int(query["mib"]) * 1024 * 1024)
    for at in range(0, len(ballast), 4096):
        ballast[at] = 1
    _eaten.append(ballast)
    time.sleep(float(query.get("sleep", 0)))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"eaten\n"]


def environment(environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(dict(os.environ)).encode()]


def _end_worker(after: float) -> None:
    from django_prefork import signals

    def end(**_: object) -> None:
        threading.Timer(after, os._exit, [9]).start() if after else os._exit(9)

    (signals.worker_ready if after else signals.post_fork).connect(end, weak=False)


def __getattr__(name: str) -> Any:
    """`crash`: its workers end 0.1 s after they are ready; `never_ready`: before."""
    if name in ("crash", "never_ready"):
        _end_worker(0.1 if name == "crash" else 0.0)
        return hello
    raise AttributeError(name)


def remembered(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """How many connections remember a head with the query in its fields."""
    what = environ["QUERY_STRING"].encode()

    def holds(one: Repeats) -> bool:
        found = list(one._before or ())
        if one.shape is not None:
            found += [one.shape.ends, *(stretch for stretch, *_ in one.shape.steps)]
            found += [str(value).encode() for value in one.shape.fields.values()]
        return any(what in each for each in found)

    count = sum(holds(one) for one in gc.get_objects() if type(one) is Repeats)
    answer = b"%d" % count
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
