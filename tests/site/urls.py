from __future__ import annotations

import os

from django.http import HttpRequest, HttpResponse
from django.urls import path


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello from {os.getpid()}\n", content_type="text/plain")


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("as asked")


urlpatterns = [path("", hello), path("boom/", boom)]
