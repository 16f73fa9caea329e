"""What the servers serve."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.environment import PYTHON, ROOT, variables


@dataclass(frozen=True)
class Application:
    """`wsgi` is module and callable, `settings` Django's. `expect` stands in the body of its answer.

    `probe` names the application, of the same kind to a server, that counts the results that were closed.
    `needs_close`: without close() on its results it would leak, so that a server that spares it is no comparison.
    """

    name: str
    title: str
    wsgi: tuple[str, str]
    settings: str
    expect: bytes
    probe: str
    needs_close: bool = True
    target: str = "/"
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def import_string(self) -> str:
        return ":".join(self.wsgi)

    def variables(self, folder: Path) -> dict[str, str]:
        """The environment variables of a server that serves it; `folder` is for its data."""
        return variables(
            DJANGO_SETTINGS_MODULE=self.settings,
            BENCH_APPLICATION=".".join(self.wsgi),
            DEMO_DATA_DIR=str(folder / "demo"),
            DEMO_DEBUG="0",
            **self.environ,
        )


_HELLO = ("benchmarks.site.hello", "application")
_DJANGO = ("benchmarks.site.wsgi", "application")
_SETTINGS = "benchmarks.site.settings"

APPLICATIONS = (
    Application("hello", "hello-world WSGI", _HELLO, _SETTINGS, b"hello", probe="hello-probe", needs_close=False),
    Application(
        "view",
        "Django view without middleware",
        _DJANGO,
        _SETTINGS,
        b"hello",
        probe="django-probe",
        environ={"BENCH_MIDDLEWARE": "none"},
    ),
    Application(
        "middleware", "Django view with the default middleware", _DJANGO, _SETTINGS, b"hello", probe="django-probe"
    ),
    Application(
        "demo",
        "the demo's list page (SQLite, template)",
        ("demo_project.wsgi", "application"),
        "demo_project.settings",
        b"Welcome to the board",
        probe="django-probe",
    ),
)

# What is never measured, only asked: `/closed` tells how many results were closed so far.
PROBES = {
    "hello-probe": Application(
        "hello-probe",
        "hello-world WSGI that counts close()",
        ("benchmarks.site.probe", "application"),
        _SETTINGS,
        b"hello",
        probe="",
    ),
    "django-probe": Application(
        "django-probe",
        "Django view that counts request_finished",
        _DJANGO,
        _SETTINGS,
        b"hello",
        probe="",
        environ={"BENCH_PROBE": "1"},
    ),
}


def make_demo_data(folder: Path) -> None:
    """The demo's database, with its sample notices, in `folder`."""
    demo = next(application for application in APPLICATIONS if application.name == "demo")
    environ = demo.variables(folder)
    for words in (("migrate", "--verbosity", "0"), ("demo_data",)):
        command = [PYTHON, ROOT / "manage.py", *words]
        subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=120)
