"""A project in one file, for test runs that the tests start: settings, addresses and views."""

from __future__ import annotations

import os
import subprocess
import time

SECRET_KEY = "only-for-tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_prefork"]
ROOT_URLCONF = "tests.live.site"
DATABASES: dict[str, dict[str, object]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "unused.sqlite3",
        "TEST": {"NAME": os.environ.get("SITE_TEST_DATABASE") or None},
    }
}
if os.environ.get("SITE_POSTGRES"):
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "site",
        "USER": "prefork",
        "HOST": os.environ["SITE_POSTGRES"],
        "OPTIONS": {"pool": True} if os.environ.get("SITE_POOL") else {},
    }
MIGRATION_MODULES = {"auth": None, "contenttypes": None}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
STATIC_URL = "static/"
USE_TZ = True
GREETING = "hello"


def greeting(request):  # type: ignore[no-untyped-def]
    from django.conf import settings
    from django.http import HttpResponse

    return HttpResponse(settings.GREETING)


def users(request):  # type: ignore[no-untyped-def]
    from django.contrib.auth.models import User
    from django.http import JsonResponse

    if request.GET.get("add"):
        User.objects.create(username=request.GET["add"])
    return JsonResponse(sorted(User.objects.values_list("username", flat=True)), safe=False)


def boom(request):  # type: ignore[no-untyped-def]
    print("printed before the end")
    raise RuntimeError("this view always raises")


def stuck(request):  # type: ignore[no-untyped-def]
    time.sleep(600)


def left_behind(request):  # type: ignore[no-untyped-def]
    """A program that the view starts and forgets."""
    from django.http import HttpResponse

    return HttpResponse(str(subprocess.Popen(["sleep", "600"]).pid))


asked = 0


def remembers(request):  # type: ignore[no-untyped-def]
    """What this process has in memory: the content type's id, as Django caches it, and how often it was asked."""
    from django.contrib.auth.models import User
    from django.contrib.contenttypes.models import ContentType
    from django.http import JsonResponse

    global asked
    asked += 1
    return JsonResponse([ContentType.objects.get_for_model(User).pk, asked], safe=False)


def urlpatterns_of() -> list[object]:
    from django.urls import path

    return [path(f"{view.__name__}/", view) for view in (greeting, users, boom, stuck, left_behind, remembers)]


def __getattr__(name: str) -> object:
    if name == "urlpatterns":  # not while the settings are read
        return urlpatterns_of()
    raise AttributeError(name)
