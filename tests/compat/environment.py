"""The packages' own environment, tests/compat/.venv, made at first use: this project depends on none of them."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / "tests" / "compat" / ".venv"
PYTHON = VENV / "bin" / "python"
SOURCES = VENV / "sources"

PACKAGES = (
    "brotli",
    "django-allauth[mfa,socialaccount,steam]",
    "django-debug-toolbar",
    "djangorestframework",
    "gunicorn",
    "jinja2",
    "psutil",
    "requests",
    "selenium",
    "wagtail",
    "whitenoise",
)
# Their source distributions hold tests and example projects that are not installed.
WITH_SOURCES = ("django", "django-allauth", "django-debug-toolbar")


def continue_inside() -> None:
    """Go on as `python -m tests.compat` in the environment, unless this process is there already."""
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    made = VENV / ".made"
    if not made.exists() or made.read_text() != str(PACKAGES):
        print(f"making {VENV.relative_to(ROOT)}", file=sys.stderr, flush=True)
        venv.create(VENV, with_pip=True)
        _pip("install", "--editable", str(ROOT), *PACKAGES)
        made.write_text(str(PACKAGES))
    os.chdir(ROOT)
    os.execve(PYTHON, [str(PYTHON), "-m", "tests.compat", *sys.argv[1:]], {**os.environ, "PYTHONPATH": str(ROOT)})


def version(package: str) -> str:
    return importlib.metadata.version(package)


def source(package: str) -> Path:
    """The folder of a package's source distribution, of the version that is installed."""
    folder = SOURCES / f"{package.replace('-', '_')}-{version(package)}"
    if not folder.exists():
        only = ("--no-deps", "--no-binary", ":all:", "--dest", str(SOURCES))
        _pip("download", *only, f"{package}=={version(package)}")
        with tarfile.open(f"{folder}.tar.gz") as archive:
            archive.extractall(SOURCES, filter="data")
    return folder


def _pip(*arguments: str) -> None:
    subprocess.run([PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)
