"""Settings of the demo site: a startproject, and what a site with several worker processes adds to it.

The environment may say (all optional):

DEMO_DATA_DIR        where the database, the uploads and the collected static files live; default demo_project/data
DEMO_DEBUG           1 or 0; default 1
DEMO_ALLOWED_HOSTS   host names, comma separated; default localhost,127.0.0.1,[::1]
DEMO_SECRET_KEY      default: a key that everybody can read in this file
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent

DATA_DIR = Path(os.environ.get("DEMO_DATA_DIR") or BASE_DIR / "data").absolute()
# SQLite makes its file but not the folder around it; and the uploads' temporary folder has to be there before the
# first upload (system check files.E001).
(DATA_DIR / "tmp").mkdir(parents=True, exist_ok=True)

DEBUG = os.environ.get("DEMO_DEBUG", "1").lower() in {"1", "true", "yes", "on"}

SECRET_KEY = os.environ.get("DEMO_SECRET_KEY") or "django-insecure-demo-key-that-everybody-can-read-so-change-it"

ALLOWED_HOSTS = [
    host.strip()
    for host in os.environ.get("DEMO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
    if host.strip()
]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_prefork",
    "django_prefork.dashboard",
    "demo_project.board",
]

# GZip stands outside ConditionalGet: the ETag is of the page itself, since GZipMiddleware pads what it compresses
# with random bytes (against BREACH) and a tag of that would never match again.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "demo_project.urls"

WSGI_APPLICATION = "demo_project.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Several processes share one file. WAL lets them read while one writes; IMMEDIATE takes the write lock when a
# transaction begins, where SQLite waits for it (up to `timeout` seconds), and not in its middle, where SQLite can only
# fail with "database is locked". With WAL, synchronous=NORMAL can lose the last commits to a power cut but no more.
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        # In memory, as Django has it unasked, the server that browser tests run on could not see it.
        "TEST": {"NAME": DATA_DIR / "test.sqlite3"},
    }
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LOGIN_REDIRECT_URL = "board:notices"
LOGOUT_REDIRECT_URL = "board:notices"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"

# Nothing serves this folder by URL: a file leaves through /files/<id>/download/ only, always as an attachment.
MEDIA_ROOT = DATA_DIR / "uploads"

# On the same file system as MEDIA_ROOT a finished upload is renamed into place, not copied.
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "tmp"

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Django's own default is silent on the console once DEBUG is off; a traceback should reach stderr either way.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "INFO"}},
}
