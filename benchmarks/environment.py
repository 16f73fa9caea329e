"""The environment of the benchmarks: benchmarks/.venv, made on first use.

What runs the benchmarks needs the standard library only; what is measured, the package of this checkout among it, runs
here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / "benchmarks" / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"

_INSTALL_SECONDS = 600
_LIST = (
    "import importlib.metadata as m, json;"
    "print(json.dumps({d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}))"
)
# Variables by which the caller's shell would tune one server and not the others.
_TUNING = re.compile(r"PYTHON|PREFORK_|GUNICORN_|GRANIAN_|UWSGI_|DJANGO_|DEMO_|BENCH_|(PORT|WEB_CONCURRENCY)$")


def prepare(distributions: Iterable[str] = (), hints: Mapping[str, str] | None = None) -> dict[str, str]:
    """Install what is missing; return the versions of what is there, by distribution name.

    One that does not install is named on stderr, with its hint, and is missing in the result.
    """
    _make()
    versions = installed()
    requirements = dict.fromkeys([*_requirements(), *distributions])
    missing = [text for text in requirements if _name(text) not in versions]
    for requirement in missing:
        say(f"installing {requirement} into {VENV.relative_to(ROOT)}")
        reason = _install(requirement)
        if reason:
            hint = (hints or {}).get(_name(requirement), "")
            say(f"{requirement} does not install: {reason}{f'; {hint}' if hint else ''}")
    versions = installed() if missing else versions
    if "django" not in versions:
        sys.exit("Without Django nothing can be measured")
    return versions


def installed() -> dict[str, str]:
    """The versions of all distributions that are there."""
    found = subprocess.run([PYTHON, "-c", _LIST], capture_output=True, text=True, check=True, timeout=60)
    versions: dict[str, str] = json.loads(found.stdout)
    versions["django-prefork"] = own_version()
    return versions


def own_version() -> str:
    """Of the package in this checkout."""
    source = (ROOT / "django_prefork" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"', source, re.MULTILINE)
    return found[1] if found else "?"


def variables(**extra: str) -> dict[str, str]:
    """The environment variables of what is measured: the caller's, less what tunes servers."""
    kept = {key: value for key, value in os.environ.items() if not _TUNING.match(key)}
    # The package straight from the checkout, so that what is measured is always what is there.
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def continue_inside(module: str, *distributions: str) -> None:
    """Go on as `python -m module` inside the environment, unless this process is there already."""
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    prepare(distributions)
    os.chdir(ROOT)
    os.execve(PYTHON, [str(PYTHON), "-m", module, *sys.argv[1:]], variables())


def say(text: str) -> None:
    """To the person who waits: stderr, so that stdout has the tables alone."""
    print(text, file=sys.stderr, flush=True)


def _make() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if PYTHON.exists() and not (VENV / "lib" / f"python{version}").is_dir():
        say(f"{VENV.relative_to(ROOT)} is of another Python than this one ({version}): made anew")
        shutil.rmtree(VENV)
    if not PYTHON.exists():
        say(f"making {VENV.relative_to(ROOT)}")
        venv.create(VENV, with_pip=True, clear=True)


def _requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies: list[str] = project["dependencies"]
    return dependencies


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _install(requirement: str) -> str:
    """Returns why it failed, or an empty text."""
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not done after {_INSTALL_SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
    # The compiler's own word says more than pip's, which says only that there was one.
    telling = [line for line in lines if "fatal error" in line] or lines or ["pip failed"]
    return telling[0]
