"""Every server, and how it is started to serve one application with one worker, as cheaply as it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.applications import Application
from benchmarks.cores import cores
from benchmarks.environment import BIN, PYTHON, ROOT
from benchmarks.processes import Running, free_port, serving

OURS = "django-prefork"


class Target(NamedTuple):
    """`folder` is for logs and data, and goes away after the run."""

    application: Application
    port: int
    workers: int
    folder: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def wsgi(self) -> str:
        return self.application.import_string


@dataclass(frozen=True)
class Server:
    """`also` are further requirements of pip. `hint` is said where `distribution` does not install.

    `several`: it can have more than one worker process.
    """

    name: str
    distribution: str
    command: Callable[[Target], list[str | Path]]
    several: bool = False
    also: tuple[str, ...] = ()
    hint: str = ""

    @property
    def requirements(self) -> tuple[str, ...]:
        return () if self.distribution == OURS else (self.distribution, *self.also)

    @contextmanager
    def serve(self, application: Application, folder: Path, *, workers: int = 1, pin: bool = True) -> Iterator[Running]:
        """Running, on the server's core if `pin`. Raises `StartError`."""
        target = Target(application, free_port(), workers, folder)
        command = [*(cores().server if pin else ()), *map(str, self.command(target))]
        log = folder / f"{self.name}.log"
        with serving(command, target.port, application.variables(folder), application.target, log) as running:
            yield running


def _prefork(target: Target) -> list[str | Path]:
    manage = ROOT / "manage.py"
    return [PYTHON, manage, "runprefork", target.address, "--workers", str(target.workers), "--skip-checks"]


def _prefork_logging(target: Target) -> list[str | Path]:
    return [*_prefork(target), "--access-log", target.folder / "access.log"]


def _gunicorn(target: Target) -> list[str | Path]:
    # Its control socket would be a file in the user's home.
    quiet = ("--log-level", "error", "--no-control-socket")
    return [BIN / "gunicorn", target.wsgi, "-w", str(target.workers), "-b", target.address, *quiet]


def _gunicorn_gthread(target: Target) -> list[str | Path]:
    return [*_gunicorn(target), "-k", "gthread", "--threads", "4"]


def _uwsgi(target: Target) -> list[str | Path]:
    return _uwsgi_at(target, "--http-socket", target.address)


def _uwsgi_http11(target: Target) -> list[str | Path]:
    # Its worker stays with one connection until that closes: it wants a proxy in front with a connection for each.
    return _uwsgi_at(target, "--http11-socket", target.address)


def _uwsgi_router(target: Target) -> list[str | Path]:
    # A process of its own in front of the workers: what uWSGI has for keep-alive with clients.
    return _uwsgi_at(target, "--http", target.address, "--http-keepalive=75")


def _uwsgi_at(target: Target, *socket: str) -> list[str | Path]:
    # Without --die-on-term it takes TERM for a reload.
    options = ("--master", "--disable-logging", "--die-on-term", "--need-app", "-p", str(target.workers))
    return [BIN / "uwsgi", *socket, "--module", target.wsgi, *options]


def _granian(target: Target) -> list[str | Path]:
    return [
        *(BIN / "granian", "--interface", "wsgi", target.wsgi, "--port", str(target.port)),
        *("--workers", str(target.workers), "--blocking-threads", "1"),
        *("--no-ws", "--http", "1", "--log-level", "error"),
        # By default it takes 1024 connections at a time.
        *("--backlog", "20000", "--backpressure", "20000"),
    ]


def _waitress(target: Target) -> list[str | Path]:
    return [
        *(BIN / "waitress-serve", "--host", "127.0.0.1", "--port", str(target.port)),
        # poll(), since select() ends at descriptor 1023.
        *("--threads", "1", "--connection-limit", "20000", "--asyncore-use-poll", target.wsgi),
    ]


def _cheroot(target: Target) -> list[str | Path]:
    return [BIN / "cheroot", target.wsgi, "--bind", target.address, "--threads", "1"]


def _bjoern(target: Target) -> list[str | Path]:
    module, name = target.application.wsgi
    return [PYTHON, "-c", f"import bjoern; from {module} import {name} as a; bjoern.run(a, '127.0.0.1', {target.port})"]


def _freastal(target: Target) -> list[str | Path]:
    module, name = target.application.wsgi
    call = f"freastal.serve(a, host='127.0.0.1', port={target.port}, workers={target.workers})"
    return [PYTHON, "-c", f"import freastal; from {module} import {name} as a; {call}"]


def _fastwsgi(target: Target) -> list[str | Path]:
    return [BIN / "fastwsgi", "--host", "127.0.0.1", "--port", str(target.port), "--loglevel", "0", target.wsgi]


# In the order in which they take turns.
SERVERS = (
    Server(OURS, OURS, _prefork, several=True),
    Server("bjoern", "bjoern", _bjoern, hint="it is built here and needs libev: apt-get install libev-dev gcc"),
    Server("freastal", "freastal", _freastal),
    # It imports pkg_resources, which setuptools had until then.
    Server("fastwsgi", "fastwsgi", _fastwsgi, also=("setuptools<81",)),
    Server("granian", "granian", _granian, several=True),
    Server("uwsgi", "pyuwsgi", _uwsgi, several=True),
    Server("uwsgi-http11", "pyuwsgi", _uwsgi_http11, several=True),
    Server("uwsgi-router", "pyuwsgi", _uwsgi_router, several=True),
    Server("waitress", "waitress", _waitress),
    Server("cheroot", "cheroot", _cheroot),
    Server("gunicorn-gthread", "gunicorn", _gunicorn_gthread, several=True),
    Server("gunicorn-sync", "gunicorn", _gunicorn, several=True),
)
OURS_LOGGING = Server(f"{OURS}+access-log", OURS, _prefork_logging, several=True)
