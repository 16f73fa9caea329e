from __future__ import annotations

import os

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path

from tests.postgres.site import backend


def who(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"worker": os.getpid(), "backend": backend(), "driver": connection.Database.__name__})


def sleep(request: HttpRequest) -> JsonResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [float(request.GET["s"])])
    return who(request)


urlpatterns = [path("", who), path("sleep/", sleep)]
