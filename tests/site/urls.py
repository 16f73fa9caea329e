from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views import View

from django_prefork import status
from django_prefork.deadline import extend, timeout


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello from {os.getpid()}\n", content_type="text/plain")


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("as asked")


def slow(request: HttpRequest) -> HttpResponse:
    time.sleep(float(request.GET["s"]))  # prefork: ok
    return HttpResponse("slept\n")


def spin(request: HttpRequest) -> HttpResponse:
    """In Python, for ever."""
    while True:
        pass


def catastrophe(request: HttpRequest) -> HttpResponse:
    """In C code that keeps the GIL."""
    return HttpResponse(str(re.match(r"(a+)+$", "a" * 64 + "b")))


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


class Sleep(View):
    def get(self, request: HttpRequest, seconds: float) -> HttpResponse:
        os.write(2, b"sleeping\n")
        time.sleep(seconds)  # prefork: ok
        return HttpResponse("slept\n")


def inside(request: HttpRequest) -> HttpResponse:
    """What a view may learn of its server, and ask of it."""
    try:
        if "stacks" in request.GET:
            return HttpResponse(status.stacks(int(request.GET["stacks"])))
        if "reload" in request.GET:
            status.reload(request.GET["reload"])
    except status.StatusError as error:
        return HttpResponse(str(error), status=409)
    if "hour" in request.GET:
        return JsonResponse({"requests": [point.requests for point in status.last_hour()]})
    snapshot = status.snapshot()
    assert snapshot is not None
    return JsonResponse(snapshot.as_dict())


def counted(request: HttpRequest) -> HttpResponse:
    """A metric of the project's own."""
    from tests.site.counting import ALIVE, SEEN

    SEEN.inc()
    ALIVE.set(1)
    return HttpResponse("counted\n")


urlpatterns = [
    path("", hello),
    path("boom/", boom),
    path("slow/", slow),
    path("stubborn/", stubborn),
    path("spin/", spin),
    path("catastrophe/", catastrophe),
    path("short/", short),
    path("endless/", endless),
    path("patient/", patient),
    path("stream/", stream),
    path("sleep/<int:seconds>/", Sleep.as_view()),
    path("inside/", inside),
    path("counted/", counted),
]
