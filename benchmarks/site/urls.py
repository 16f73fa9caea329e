"""One view of one line, a file (BENCH_FILE) and a stream (of BENCH_STREAM bytes).

With BENCH_PROBE one more, that tells how many requests Django knows to be finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from django.core.signals import request_finished
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

_finished = 0


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello\n", content_type="text/plain")


def count(**kwargs: Any) -> None:
    global _finished
    _finished += 1


def closed(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(_finished), content_type="text/plain")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(os.environ["BENCH_FILE"], "rb"))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[bytes]:
        piece = bytes(8 * 1024)
        for _ in range(int(os.environ["BENCH_STREAM"]) // len(piece)):
            yield piece

    return StreamingHttpResponse(pieces())


urlpatterns = [path("", hello), path("file", file), path("stream", stream)]

# Not otherwise: a receiver is work for every request.
if os.environ.get("BENCH_PROBE"):
    request_finished.connect(count)
    urlpatterns.append(path("closed", closed))
