"""The examples of docs/deploying.md and docs/signals.md, and a project to try them with."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness import PATIENCE, ROOT, Server

PAGES = ("deploying.md", "signals.md")


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """The page, and the first line that is no comment; two, where that is half a sentence."""
        lines = [line.strip() for line in self.text.splitlines() if not line.startswith("#")]
        return f"{self.page}: {' '.join(lines[:2]) if lines[0].endswith('{') else lines[0]}"


@cache
def blocks() -> tuple[Block, ...]:
    found = []
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text()
        for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
            found.append(Block(page, match[2], textwrap.dedent(match[3])))
    return tuple(found)


def block(name: str) -> str:
    """The text of the block with that name."""
    (found,) = (each.text for each in blocks() if each.name == name)
    return found


SETTINGS = """
SECRET_KEY = "only-for-tests"
ALLOWED_HOSTS = ["example.com"]
INSTALLED_APPS = ["django_prefork"]
ROOT_URLCONF = "mysite.urls"
USE_TZ = True
DATA_UPLOAD_MAX_MEMORY_SIZE = None
"""

URLS = """
import os
import time

from django.http import JsonResponse
from django.urls import path


def echo(request):
    time.sleep(float(request.GET.get("sleep", "0")))
    return JsonResponse(
        {
            "address": request.META["REMOTE_ADDR"],
            "host": request.get_host(),
            "scheme": request.scheme,
            "body": len(request.body),
            "connection": request.headers.get("Connection", ""),
            "pid": os.getpid(),
            "arbiter": os.getppid(),
        }
    )


urlpatterns = [path("", echo)]
"""

MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
execute_from_command_line(sys.argv)
"""


class Machine:
    """A folder that stands for a machine: a project of the name that the pages use, and the folders around it."""

    def __init__(self, settings: str = "") -> None:
        # Not pytest's: the path of a socket has at most 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="mysite-")
        self.root = Path(self._folder.name)
        self.project = self.root / "srv" / "mysite"
        for folder in (self.project / "mysite", self.project / "static", self.root / "run", self.root / "etc"):
            folder.mkdir(parents=True)
        (self.project / "venv").symlink_to(sys.prefix)
        (self.project / "manage.py").write_text(MANAGE)
        (self.project / "mysite" / "settings.py").write_text(SETTINGS + settings)
        (self.project / "mysite" / "urls.py").write_text(URLS)
        self.socket = self.root / "run" / "mysite" / "web.sock"

    def here(self, text: str) -> str:
        """`text`, with the folders of this machine."""
        return re.sub(r"(?<![\w.])/(?=(?:srv|run|etc)/mysite)", f"{self.root}/", text)

    def serve(self, command: list[str], **options: Any) -> Server:
        # A command of the page's, by the interpreter of the tests.
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONDEVMODE": "1",
            **options.pop("environment", {}),
        }
        return Server(
            command=command,
            bind=None,
            settings="mysite.settings",
            folder=self.project,
            environment=environment,
            **options,
        )

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings", **environment}
        variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            command, cwd=self.project, env=variables, capture_output=True, text=True, timeout=PATIENCE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self._folder.cleanup()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("example.com", timeout=PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def ask(place: Path | int, path: str = "/", body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and words of an answer of the project's, at a unix socket or a port."""
    if isinstance(place, Path):
        connection: http.client.HTTPConnection = UnixConnection(place)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", place, timeout=PATIENCE)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST" if body else "GET", path, body, {"Host": "example.com", **named})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {"text": text}
    finally:
        connection.close()


def unit_lines(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of each line of a unit."""
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            yield section, key, value
