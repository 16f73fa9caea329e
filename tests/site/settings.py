"""A project for the tests of the server: the least of Django, and an application that the test chooses."""

from __future__ import annotations

import os

SECRET_KEY = "only-for-tests"
DEBUG = False
ALLOWED_HOSTS = [host for host in os.environ.get("TEST_ALLOWED_HOSTS", "*").split(",") if host]
INSTALLED_APPS = ["django_prefork", *filter(None, [os.environ.get("TEST_APP")])]
DATABASES: dict[str, object] = {}
ROOT_URLCONF = os.environ.get("TEST_URLCONF", "tests.site.urls")
USE_TZ = True
TIME_ZONE = "UTC"
# "tests.site.apps.hello", say; without it, Django's own.
if os.environ.get("TEST_APPLICATION"):
    WSGI_APPLICATION = os.environ["TEST_APPLICATION"]
