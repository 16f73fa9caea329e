"""System checks: what in a project's settings does not go with several processes, or with this server.

Registered under the tag `prefork`; docs/checks.md says what each means. `manage.py check` judges by environment and
settings, `runprefork` by its flags as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register

from django_prefork import config
from django_prefork.config import Config, ConfigError

TAG = "prefork"

# A worker needs one connection; PostgreSQL allows 100 to all its clients by default, and others want some, too.
MOST_POOLED = 50
# What psycopg_pool opens where nobody says how many.
POOL_MIN_SIZE = 4
# Seconds from TERM to KILL: Docker, Cloud Run. Kubernetes, ECS and Heroku wait 30.
KILL_WINDOW = 10

Check = Callable[[Config], Iterator[CheckMessage]]
_checks: list[Check] = []


def _check(function: Check) -> Check:
    _checks.append(function)
    return function


@register(TAG)
def check(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not hasattr(os, "fork"):
        text = "This platform cannot fork, and a pre-fork server cannot do without."
        return [Error(text, hint="Use Linux; macOS will do for development.", id="django_prefork.E002")]
    try:
        used = config.in_use or config.resolve(
            {}, os.environ, getattr(settings, "PREFORK", None), debug=bool(settings.DEBUG)
        )
    except ConfigError as error:
        return [Error(str(error), id="django_prefork.E001")]
    return [message for each in _checks for message in each(used)]


@register(TAG, deploy=True)
def check_deploy(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.DEBUG:
        return []
    text = "DEBUG is on: every error shows your settings to whoever caused it, and every query is kept in memory."
    return [Warning(text, hint="Set DEBUG = False where others can reach the server.", id="django_prefork.W001")]


@_check
def _databases(used: Config) -> Iterator[CheckMessage]:
    pooled = 0
    for alias, database in settings.DATABASES.items():
        engine, name = str(database.get("ENGINE", "")), str(database.get("NAME", ""))
        if engine.endswith("sqlite3") and (":memory:" in name or "mode=memory" in name) and used.workers > 1:
            yield Warning(
                f"The database {alias!r} is in memory: each of {used.workers} workers has one of its own.",
                hint="Give it a file's NAME, or serve with one worker.",
                id="django_prefork.W002",
            )
        pool = (database.get("OPTIONS") or {}).get("pool")
        if pool:
            size = pool.get("min_size", POOL_MIN_SIZE) if isinstance(pool, dict) else POOL_MIN_SIZE
            pooled += size if isinstance(size, int) else 0
        age = database.get("CONN_MAX_AGE", 0)
        if age != 0 and not engine.endswith("sqlite3") and used.sources["workers"] == "default":
            yield Info(
                f"The database {alias!r} has CONN_MAX_AGE, and the number of workers follows the machine's CPUs: "
                "so does the number of connections that are kept open.",
                hint="Say how many workers there are, or leave CONN_MAX_AGE at 0.",
                id="django_prefork.I003",
            )
    if pooled * used.workers > MOST_POOLED:
        yield Warning(
            f"{used.workers} workers with pools of at least {pooled} connections keep {pooled * used.workers} open; "
            "each worker uses one at a time.",
            hint='Set "pool": {"min_size": 1, "max_size": 2} in OPTIONS, or no pool and CONN_MAX_AGE.',
            id="django_prefork.W003",
        )


@_check
def _caches(used: Config) -> Iterator[CheckMessage]:
    if used.workers == 1 or not (settings.is_overridden("CACHES") or _uses_cache()):
        return
    for alias, cache in settings.CACHES.items():
        if str(cache.get("BACKEND", "")).endswith("LocMemCache"):
            yield Info(
                f"The cache {alias!r} is in each worker's own memory: what one of {used.workers} sets or deletes, "
                "the others do not see.",
                hint="For sessions, limits and locks use a cache that all workers share.",
                id="django_prefork.I001",
            )


def _uses_cache() -> bool:
    """By Django's own default, without a word in CACHES."""
    engine = str(settings.SESSION_ENGINE)
    sessions = "django.contrib.sessions" in settings.INSTALLED_APPS and engine.endswith(("cache", "cached_db"))
    return sessions or "django.middleware.cache.UpdateCacheMiddleware" in settings.MIDDLEWARE


@_check
def _logging(used: Config) -> Iterator[CheckMessage]:
    if settings.DEBUG or config.in_use is not None:
        return  # the server itself sees to it: this is for all else that runs the project
    from django_prefork import log  # which imports much of Django: not for every command

    if not log.shows_errors():
        yield Warning(
            "DEBUG is off, and no handler in LOGGING would show an exception that a view raises.",
            hint="Add a StreamHandler for the logger django; runprefork shows them on standard error by itself.",
            id="django_prefork.W004",
        )


@_check
def _proxies(used: Config) -> Iterator[CheckMessage]:
    by_network = any(bind.kind != "unix" for bind in used.bind)
    names = ("SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST", "USE_X_FORWARDED_PORT")
    believed = [name for name in names if getattr(settings, name, None)]
    if believed and not used.forwarded_allow_ips and by_network:
        yield Warning(
            f"Django believes a proxy's headers ({', '.join(believed)}), but the server believes nobody: the client's "
            "address is the proxy's, and whoever reaches the server directly is believed.",
            hint="Set FORWARDED_ALLOW_IPS in PREFORK to your proxies; then SECURE_PROXY_SSL_HEADER is not needed.",
            id="django_prefork.W005",
        )
    if not believed and "*" in used.forwarded_allow_ips and by_network:
        yield Warning(
            "The server believes proxies' headers from everybody (FORWARDED_ALLOW_IPS is *), while Django believes "
            "none: whoever reaches the server directly can choose its address and scheme.",
            hint="Name your proxies' addresses; silence this where nobody else can reach the server.",
            id="django_prefork.W006",
        )


@_check
def _stopping(used: Config) -> Iterator[CheckMessage]:
    seconds = used.drain_delay + used.graceful_timeout
    if seconds >= KILL_WINDOW:
        yield Info(
            f"A stop may take {seconds:g} s (drain_delay + graceful_timeout), but Docker kills after {KILL_WINDOW} s, "
            "Kubernetes after 30 s.",
            hint="Give it more time there (stop_grace_period, terminationGracePeriodSeconds), or less here.",
            id="django_prefork.I002",
        )


@_check
def _prometheus(used: Config) -> Iterator[CheckMessage]:
    if used.workers > 1 and apps.is_installed("django_prometheus") and not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        yield Warning(
            "django_prometheus counts in each worker by itself: a scrape sees one of several, and the next another.",
            hint="Set PROMETHEUS_MULTIPROC_DIR in the environment to an empty folder.",
            id="django_prefork.W007",
        )
