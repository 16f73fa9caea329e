"""Projects in a temporary folder, and a client that fills in forms."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from tests.harness import ROOT, Server

SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "only-for-tests"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "django.contrib.admin", "django_prefork"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages"]}}]
ROOT_URLCONF = "urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3",
    "OPTIONS": {"transaction_mode": "IMMEDIATE"}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "collected"
USE_TZ = True
"""
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""


class Project:
    """A folder with a manage.py. `manage()` runs a command, `serve()` the server, with three workers."""

    def __init__(self, folder: Path, settings: str = "settings") -> None:
        self.folder = folder
        self.settings = settings

    @classmethod
    def plain(cls, folder: Path, settings: str, **files: str) -> Project:
        """Of SETTINGS and what is appended to them; `files` by name, without .py."""
        (folder / "settings.py").write_text(SETTINGS + settings)
        (folder / "manage.py").write_text(MANAGE)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return cls(folder)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": self.settings}

    def manage(self, *words: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=self.folder,
            env={**self.environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def superuser(self, *more: str) -> None:
        words = ("createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.com", *more)
        self.manage(*words, DJANGO_SUPERUSER_PASSWORD="a-password-for-a-test")

    @contextmanager
    def serve(self, *arguments: str, errors: str = "") -> Iterator[Client]:
        command = [sys.executable, "manage.py", "runprefork"]
        with Server(
            "--workers",
            "3",
            *arguments,
            command=command,
            folder=self.folder,
            settings=self.settings,
            errors=errors,
        ) as server:
            server.ready()
            try:
                with Client(server) as client:
                    yield client
            except Exception as error:
                error.add_note(server.log[-5000:])
                raise


class Client(requests.Session):
    """One visitor."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.base = f"http://127.0.0.1:{server.port}"

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        options.setdefault("timeout", 60)
        return super().request(method, urljoin(self.base, url), *arguments, **options)

    def submit(self, url: str, files: Any = None, **fields: Any) -> requests.Response:
        """Fill in the form of a page, with the token that it has."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(url).text)
        assert token, url
        fields["csrfmiddlewaretoken"] = token[1]
        return self.post(url, data=fields, files=files, headers={"Referer": urljoin(self.base, url)})


def ok(answer: requests.Response, text: str = "") -> requests.Response:
    """The answer, if it is a 200 that says `text`."""
    assert answer.status_code == 200, f"{answer.url}: {answer.status_code}\n{answer.text[-2000:]}"
    assert text in answer.text, f"{answer.url} does not say {text!r}:\n{answer.text[-2000:]}"
    return answer
