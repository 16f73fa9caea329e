from __future__ import annotations

import pytest
import requests
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from django_prefork.test import PreforkServer


@pytest.mark.parametrize("name", ["ada", "grace", "barbara", "radia"])
def test_both_sides_write_and_see_it(prefork_server: PreforkServer, name: str) -> None:
    assert not connection.in_atomic_block
    User.objects.create(username=name)
    answer = requests.get(f"{prefork_server}/users/?add=server", timeout=30)
    assert answer.json() == sorted([name, "server"])
    assert User.objects.count() == 2
    (pk, _) = requests.get(f"{prefork_server}/remembers/", timeout=30).json()
    assert pk == ContentType.objects.filter(model="user").get().pk


@pytest.mark.django_db
def test_others_keep_their_transaction() -> None:
    assert connection.in_atomic_block
    assert not User.objects.exists()


@pytest.mark.usefixtures("prefork_server")
@pytest.mark.django_db(databases=["default"], reset_sequences=True)
def test_a_marker_keeps_what_it_says() -> None:
    assert not connection.in_atomic_block
    assert User.objects.create(username="first").pk == 1


def test_settings_reach_it_when_it_is_started_again(prefork_server: PreforkServer, settings: object) -> None:
    settings.GREETING = "good evening"  # type: ignore[attr-defined]
    assert requests.get(f"{prefork_server}/greeting/", timeout=30).text == "hello"
    before = prefork_server.url
    prefork_server.restart()
    assert prefork_server.url == before
    assert requests.get(prefork_server + "/greeting/", timeout=30).text == "good evening"
    settings.GREETING = "hello"  # type: ignore[attr-defined]
    prefork_server.restart()
