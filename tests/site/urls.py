from __future__ import annotations

import os
import time
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from django_prefork.deadline import extend, timeout


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello from {os.getpid()}\n", content_type="text/plain")


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("as asked")


def slow(request: HttpRequest) -> HttpResponse:
    time.sleep(float(request.GET["s"]))  # prefork: ok
    return HttpResponse("slept\n")


def stubborn(request: HttpRequest) -> HttpResponse:
    """Catches what it is told, again and again."""
    caught = 0
    while True:
        try:
            time.sleep(60)  # prefork: ok
        except BaseException:
            caught += 1
            os.write(2, b"caught %d\n" % caught)
            if caught == int(request.GET.get("give_up", 0)):
                raise


@timeout(0.3)
def short(request: HttpRequest) -> HttpResponse:
    return slow(request)


@timeout(None)
def endless(request: HttpRequest) -> HttpResponse:
    return slow(request)


def patient(request: HttpRequest) -> HttpResponse:
    extend(float(request.GET["more"]))
    return slow(request)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Pieces, `s` seconds apart; the last one after `last`."""

    def pieces() -> Iterator[str]:
        for number in range(4):
            time.sleep(float(request.GET["s" if number < 3 else "last"]))  # prefork: ok
            yield f"piece {number}\n"

    return StreamingHttpResponse(pieces())


urlpatterns = [
    path("", hello),
    path("boom/", boom),
    path("slow/", slow),
    path("stubborn/", stubborn),
    path("short/", short),
    path("endless/", endless),
    path("patient/", patient),
    path("stream/", stream),
]
