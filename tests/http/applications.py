"""An application that answers in every way there is, for a real server: the path says which."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from django_prefork.http.environ import NO_BODY


def answers(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    size = int(query.get("size", 0))
    status = query.get("status", "200 OK")
    headers = [("Content-Type", "text/plain")]
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    if query.get("connection"):
        headers.append(("Connection", query["connection"]))
    kind = environ["PATH_INFO"][1:]
    if kind == "raise":
        raise RuntimeError("as asked")
    if kind == "bad":
        headers.append(("X-Bad", "a\r\nX-Injected: evil"))
    if kind == "body":
        return _body(environ, start_response)
    write = start_response(status, headers)
    body = b"0123456789" * (size // 10) + b"x" * (size % 10)
    if kind in ("file", "packed"):
        file = _file(body) if kind == "file" else gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(body)))
        return environ["wsgi.file_wrapper"](file)
    if kind == "stream":
        return _stream(body, int(query.get("piece", 1000)), query.get("raise") == "1")
    if kind == "write":
        for start in range(0, size, 1000):
            write(body[start : start + 1000])
        return []
    return [body]


def _file(body: bytes) -> Any:
    import tempfile

    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the server
    file.write(body)
    file.seek(0)
    return file


def _stream(body: bytes, piece: int, fails: bool) -> Iterator[bytes]:
    for start in range(0, len(body), piece):
        yield body[start : start + piece]
    if fails:
        raise RuntimeError("as asked")


def _body(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The body as it came, and whether reading goes on to say nothing."""
    file = environ["wsgi.input"]
    body = file.read()
    assert file.read(10) == b"" and (file is NO_BODY or len(body) == int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [])
    return [body]
