"""As startproject makes them, less what a view of one line does not use.

BENCH_APPLICATION  the dotted name of the WSGI callable that runprefork serves; default: the project's own
BENCH_MIDDLEWARE   `none`, or `default`: the seven of startproject
BENCH_PROBE        1: count request_finished, and tell the count at /closed
"""

from __future__ import annotations

import os
from typing import Any

SECRET_KEY = "only-for-benchmarks"
DEBUG = False
ALLOWED_HOSTS = ["*"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django_prefork",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
if os.environ.get("BENCH_MIDDLEWARE") == "none":
    MIDDLEWARE = []

ROOT_URLCONF = "benchmarks.site.urls"
WSGI_APPLICATION = os.environ.get("BENCH_APPLICATION") or "benchmarks.site.wsgi.application"
DATABASES: dict[str, Any] = {}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
