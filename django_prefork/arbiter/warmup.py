"""Before the first fork: load what first requests would load, so that workers share it and none of them is slow."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from django.conf import global_settings, settings
from django.urls import URLResolver, get_resolver
from django.utils import translation

from django_prefork.arbiter.patience import Patience, TookTooLong
from django_prefork.config import Config
from django_prefork.http.environ import complete, template
from django_prefork.http.parser import Limits, RequestParser
from django_prefork.http.response import Response

logger = logging.getLogger("django_prefork")

Application = Callable[..., Any]


class Phases:
    """How long each part of a boot took (seconds); `str()` gives `setup 1.8 s, urls 0.4 s`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())


def load_urls() -> None:
    """Import the URLconf and all it includes, and fill the tables of `reverse()`. Raises what the project does."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return  # an application that is not Django's needs none
    for language in _languages():
        with translation.override(language):
            _populate(get_resolver())


def _populate(resolver: URLResolver) -> None:
    resolver.reverse_dict  # noqa: B018 - it is the look that fills it
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            _populate(pattern)


def _languages() -> list[str]:
    """Those in use: the default one, and where the project chose some from Django's hundred, these."""
    if not settings.USE_I18N:
        return [settings.LANGUAGE_CODE]
    chosen = [] if settings.LANGUAGES == global_settings.LANGUAGES else [code for code, _ in settings.LANGUAGES]
    return list(dict.fromkeys([settings.LANGUAGE_CODE, *chosen]))


def warm(application: Application, config: Config, phases: Phases) -> list[str]:
    """Make what requests make when they first need it, then do what `warmup` says; what of it failed.

    What fails is in the log and keeps nobody from serving: a database that is down for a moment must not take the
    server with it.
    """
    parts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("templates", _load_templates),
        ("static files", _load_static_files),
        ("translations", _load_translations),
    )
    failed = []
    for name, load in parts:
        with phases(name):
            if _failed(name, load):
                failed.append(name)
    if config.warmup:
        with phases("warm-up"):
            client, patience = _Client(application, config), Patience(config)
            for item in config.warmup:
                if item.startswith("/"):
                    do = partial(patience.with_path, item, partial(client.ask, item))
                else:
                    do = partial(patience.with_function, item, partial(_call, item))
                if _failed(item, do):
                    failed.append(item)
    return failed


def ask_again(application: Application, config: Config, paths: list[str]) -> None:
    """What the warm-up asked with success. What fails now is nobody's loss."""
    pid = os.getpid()
    client = _Client(application, config)
    for path in paths:
        try:
            client.ask(path)
        except (Exception, SystemExit):
            logger.debug("rehearsal of %s failed", path, exc_info=True)
        if os.getpid() != pid:
            os._exit(1)  # the application has forked


def _failed(name: str, do: Callable[[], None]) -> bool:
    logger.debug("warm-up of %s", name)  # what does not end is the last line
    try:
        do()
    except _Answer as answer:
        logger.error("warm-up of %s failed: it was answered with status %d", name, answer.status)
    except TookTooLong as error:
        logger.error("warm-up of %s failed: it took longer than %g s", name, error.limit)
    except (Exception, SystemExit):
        logger.exception("warm-up of %s failed", name)
    else:
        return False
    return True


def _load_templates() -> None:
    from django.template import engines

    engines.all()


def _load_static_files() -> None:
    if "django.contrib.staticfiles" in settings.INSTALLED_APPS:
        from django.contrib.staticfiles.storage import staticfiles_storage

        staticfiles_storage.exists  # noqa: B018 - it is made when it is first looked at, and reads its manifest


def _load_translations() -> None:
    if settings.USE_I18N:
        for language in _languages():
            with translation.override(language):
                translation.gettext("")


def _call(dotted: str) -> None:
    """`shop.caches.fill` or `shop.caches:fill`, without arguments."""
    module, _, name = dotted.replace(":", ".").rpartition(".")
    getattr(import_module(module), name)()


class _Answer(Exception):
    """Not what a warm-up hopes for."""

    def __init__(self, status: int) -> None:
        self.status = status


class _Client:
    """Asks the application within this process, by the way that a request from the network takes."""

    def __init__(self, application: Application, config: Config) -> None:
        self._application = application
        self._parser = RequestParser(Limits())
        self._https = bool(settings.SECURE_SSL_REDIRECT)
        self._template = template(
            server_name="localhost",
            server_port="443" if self._https else str(config.bind[0].port or 80),
            errors=sys.stderr,
            **{"prefork.slot": None, "prefork.generation": None},
        )
        if self._https:
            self._template["wsgi.url_scheme"] = "https"
            if settings.SECURE_PROXY_SSL_HEADER:
                name, value = settings.SECURE_PROXY_SSL_HEADER
                self._template[name] = value

    def ask(self, target: str) -> None:
        """Raises `_Answer` for a status of 400 or more."""
        head = (
            f"GET {target} HTTP/1.1\r\nHost: {_host()}\r\nUser-Agent: django-prefork warm-up\r\n"
            "Accept: text/html,*/*;q=0.8\r\nAccept-Encoding: gzip"
        )
        request = self._parser.parse(head.encode("ascii"), dict(self._template))
        response = Response(request, _Nobody(), keep_alive=False)
        response.run(self._application, complete(request, ("127.0.0.1", "0"), None))
        if response.status >= 400:
            raise _Answer(response.status)


def _host() -> str:
    """One that ALLOWED_HOSTS allows; with DEBUG and none given, Django allows localhost."""
    for host in settings.ALLOWED_HOSTS:
        if host != "*":
            return str(host).lstrip(".")
    return "localhost"


class _Nobody:
    """A `Sink`: takes an answer as a client would that reads it all."""

    def answer(self, data: bytes, /) -> None: ...

    def send(self, data: bytes, more: bytes = b"", /) -> None: ...

    def stream(self) -> Callable[[tuple[bytes, ...], int], None]:
        return lambda parts, size: None

    def end_stream(self, last: bytes = b"", /) -> None: ...

    def send_file(self, descriptor: int, offset: int, count: int) -> None: ...

    def progressed(self) -> None: ...
