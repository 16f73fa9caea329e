"""WSGI applications that a test has served."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

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
    """`/pid`, `/sleep?s=1`, `/spin` (Python, for ever), `/regex` (C code with the GIL, for ever), `/exit?status=3`..."""
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    if path == "/sleep":
        time.sleep(float(query["s"]))
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
        }
    ).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
