"""The servers of this folder's tests: one as it comes, one whose limits and patience are small; and the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.harness import Server
from tests.http.wire import Log


@pytest.fixture(scope="session")
def echo_server() -> Iterator[Server]:
    with Server("--workers", "1", application="echo").ready() as server:
        yield server


@pytest.fixture(scope="session")
def tight_server() -> Iterator[Server]:
    arguments = {
        "--workers": "1",
        "--header-timeout": "300ms",
        "--body-timeout": "300ms",
        "--keep-alive": "300ms",
        "--limit-request-line": "64",
        "--limit-request-fields": "3",
        "--limit-request-field-size": "64",
        "--limit-request-body": "1m",
        "--spool-limit": "640k",
        "--forwarded-allow-ips": "127.0.0.0/8,10.0.0.0/8",
        "--access-log": "-",
    }
    words = [word for pair in arguments.items() for word in pair]
    with Server(*words, application="echo", errors="spool_limit of .* reached").ready() as server:
        yield server


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    caplog.set_level(logging.DEBUG, "django_prefork")
    log = Log(caplog)
    yield log
    assert log.asked or not log.of(logging.ERROR)
