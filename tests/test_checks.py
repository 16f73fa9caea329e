from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, registry, run_checks

from django_prefork import checks, config
from django_prefork.config import Config
from tests.test_docs import DOCS, rows

POSTGRES = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}
LOCMEM = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
QUIET = {"PREFORK": {"WORKERS": 3}, "DATABASES": {}, "LOGGING": {}}


pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("PREFORK_") or name in ("WEB_CONCURRENCY", "PORT", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name)
    # pytest's own handlers would show everything.
    monkeypatch.setattr("django_prefork.log.shows_errors", lambda: True)
    yield


def found(settings: Any, deploy: bool = False, **changes: Any) -> list[CheckMessage]:
    for name, value in {**QUIET, **changes}.items():
        setattr(settings, name, value)
    messages: list[CheckMessage] = run_checks(tags=[checks.TAG], include_deployment_checks=deploy)
    return messages


def ids(*arguments: Any, **changes: Any) -> list[str]:
    return [str(message.id).removeprefix("django_prefork.") for message in found(*arguments, **changes)]


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("E001", {"PREFORK": {"WORKERS": "many"}}),
        ("E001", {"PREFORK": {"WORKER": 3}}),
        ("W002", {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}),
        ("W002", {"DATABASES": {"default": {"ENGINE": "x.sqlite3", "NAME": "file:a?mode=memory&cache=shared"}}}),
        ("", {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path("/srv/db.sqlite3")}}}),
        ("W003", {"PREFORK": {"WORKERS": 13}, "DATABASES": {"default": {**POSTGRES, "OPTIONS": {"pool": True}}}}),
        ("", {"PREFORK": {"WORKERS": 12}, "DATABASES": {"default": {**POSTGRES, "OPTIONS": {"pool": True}}}}),
        ("", {"PREFORK": {"WORKERS": 50}, "DATABASES": {"a": {**POSTGRES, "OPTIONS": {"pool": {"min_size": 1}}}}}),
        ("W003", {"DATABASES": {name: {**POSTGRES, "OPTIONS": {"pool": {"min_size": 9}}} for name in "ab"}}),
        ("W005", {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}),
        ("W005", {"USE_X_FORWARDED_HOST": True}),
        ("", {"USE_X_FORWARDED_HOST": True, "PREFORK": {"FORWARDED_ALLOW_IPS": "10.0.0.1"}}),
        ("", {"USE_X_FORWARDED_HOST": True, "PREFORK": {"BIND": "unix:/run/web.sock"}}),
        ("W006", {"PREFORK": {"FORWARDED_ALLOW_IPS": "*"}}),
        ("", {"PREFORK": {"FORWARDED_ALLOW_IPS": "10.0.0.0/8"}}),
        ("", {"PREFORK": {"FORWARDED_ALLOW_IPS": "*", "BIND": "unix:/run/web.sock"}}),
        ("I001", {"CACHES": LOCMEM}),
        ("", {"CACHES": LOCMEM, "PREFORK": {"WORKERS": 1}}),
        ("", {"CACHES": {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}}),
        ("I001", {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}),
        ("I002", {"PREFORK": {"GRACEFUL_TIMEOUT": 25}}),
        ("I002", {"PREFORK": {"DRAIN_DELAY": 3}}),
        ("I003", {"PREFORK": {}, "DATABASES": {"default": {**POSTGRES, "CONN_MAX_AGE": None}}}),
        ("", {"DATABASES": {"default": {**POSTGRES, "CONN_MAX_AGE": 60}}}),
    ],
)
def test_a_check_finds_what_it_looks_for_and_nothing_else(
    settings: Any, expected: str, changes: dict[str, Any]
) -> None:
    assert ids(settings, **changes) == ([expected] if expected else [])


def test_without_fork_there_is_no_server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    assert ids(settings) == ["E002"]


@pytest.mark.parametrize(
    ("debug", "deploy", "expected"), [(True, True, ["W001"]), (True, False, []), (False, True, [])]
)
def test_debug_is_for_development(settings: Any, debug: bool, deploy: bool, expected: list[str]) -> None:
    settings.DEBUG = debug
    assert ids(settings, deploy) == expected


def test_errors_that_nobody_would_see_are_told_where_the_server_does_not_show_them(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_prefork.log.shows_errors", lambda: False)
    assert ids(settings) == ["W004"]
    monkeypatch.setattr(config, "in_use", Config.of(workers=2))
    assert ids(settings) == []


def test_prometheus_needs_a_folder_for_its_counters(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setattr(checks.apps, "is_installed", lambda name: name == "django_prometheus")
    assert ids(settings) == ["W007"]
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/run/metrics")
    assert ids(settings) == []


def test_the_servers_flags_count(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "in_use", Config.of(workers=1))
    assert ids(settings, CACHES=LOCMEM) == []


def test_checks_are_registered_by_the_app_and_can_be_silenced(settings: Any) -> None:
    assert checks.check in registry.registry.get_checks()
    (message,) = found(settings, CACHES=LOCMEM)
    assert not message.is_silenced()
    settings.SILENCED_SYSTEM_CHECKS = ["django_prefork.I001"]
    assert message.is_silenced()
    assert django_settings.SILENCED_SYSTEM_CHECKS


def test_every_check_is_told_and_every_one_that_is_told_exists() -> None:
    source = Path(checks.__file__).read_text()
    told = [row[0].strip("`") for row in rows(DOCS / "checks.md", "checks")]
    for name in told:
        assert f'id="{name}"' in source
    assert source.count('id="django_prefork.') == len(told) == len(set(told))
