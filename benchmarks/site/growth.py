"""Answers of any size and kind, and uploads: /KIND?BYTES, where KIND is bytes, list, generator, file or upload."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PIECE = 8 * 1024


@cache
def _body(size: int) -> bytes:
    return bytes(size)


def _generator(size: int) -> Iterator[bytes]:
    piece = bytes(PIECE)
    for _ in range(size // PIECE):
        yield piece
    if size % PIECE:
        yield piece[: size % PIECE]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    kind, size = environ["PATH_INFO"][1:], int(environ["QUERY_STRING"] or 0)
    headers = [("Content-Type", "application/octet-stream")]
    if kind == "upload":
        source, read = environ["wsgi.input"], 0
        while piece := source.read(64 * 1024):
            read += len(piece)
        result: Iterable[bytes] = [b"%d" % read]
    elif kind == "generator":  # of unknown length: chunked
        result = _generator(size)
    elif kind == "list":
        result = list(_generator(size))
    elif kind == "file":
        file = open(Path(os.environ["BENCH_FILES"]) / str(size), "rb")  # noqa: SIM115 (the server closes it)
        headers.append(("Content-Length", str(size)))
        result = environ["wsgi.file_wrapper"](file, PIECE)
    else:
        headers.append(("Content-Length", str(size)))
        result = [_body(size)]
    start_response("200 OK", headers)
    return result
