"""One view of one line; with BENCH_PROBE, one more that tells how many requests Django knows to be finished."""

from __future__ import annotations

import os
from typing import Any

from django.core.signals import request_finished
from django.http import HttpRequest, HttpResponse
from django.urls import path

_finished = 0


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello\n", content_type="text/plain")


def count(**kwargs: Any) -> None:
    global _finished
    _finished += 1


def closed(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(_finished), content_type="text/plain")


urlpatterns = [path("", hello)]

# Not otherwise: a receiver is work for every request.
if os.environ.get("BENCH_PROBE"):
    request_finished.connect(count)
    urlpatterns.append(path("closed", closed))
