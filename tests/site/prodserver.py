"""The project for tests, with django-prodserver."""

from __future__ import annotations

from tests.site.settings import *  # noqa: F403
from tests.site.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_prodserver"]
BACKEND = "django_prefork.prodserver.PreforkServer"
PRODUCTION_PROCESSES = {
    "web": {"BACKEND": BACKEND, "ARGS": {"bind": "127.0.0.1:0", "workers": "2", "skip-checks": None}},
    "wrong": {"BACKEND": BACKEND, "ARGS": {"workers": "many"}},
}
