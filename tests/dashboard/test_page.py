"""Who may see the page, who may act on it, and what it says where no server runs."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client

from django_prefork import snapshot, status
from django_prefork.scoreboard import Scoreboard, State
from tests.dashboard.tools import PAGE

pytestmark = pytest.mark.django_db


def signed_in(name: str, *, may_look: bool = False, **more: Any) -> Client:
    user = User.objects.create_user(name, **more)
    if may_look:
        user.user_permissions.add(Permission.objects.get(codename="view_server", content_type__app_label="prefork"))
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


@pytest.fixture
def root() -> Client:
    return signed_in("root", is_staff=True, is_superuser=True)


@pytest.fixture
def viewer() -> Client:
    return signed_in("viewer", is_staff=True, may_look=True)


class Told:
    """A server that is nothing but its scoreboard: what a view tells its Arbiter stays here."""

    def __init__(self) -> None:
        self.board = Scoreboard.create(slots=8)
        self.words: list[str] = []
        slot = self.board.claim(1, time.monotonic() + 60)
        self.board.occupy(slot, 77)
        self.row = self.board.row(slot)
        self.row.state(State.IDLE, time.monotonic())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    told = Told()
    for name, value in (("_board", told.board), ("_listeners", ()), ("_say", told.words.append)):
        monkeypatch.setattr(status, name, value)
    yield told
    os.close(told.board.fd)


def text(client: Client, path: str = PAGE) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def token(client: Client) -> str:
    text(client)
    return client.cookies["csrftoken"].value


PARTS = [PAGE, f"{PAGE}now/", f"{PAGE}past/", f"{PAGE}hour/"]


@pytest.mark.parametrize("path", PARTS)
def test_strangers_go_to_the_login_and_staff_without_the_permission_is_turned_away(path: str) -> None:
    assert "/login/" in Client().get(path).headers["Location"]
    assert "/login/" in signed_in("customer").get(path).headers["Location"]
    assert signed_in("clerk", is_staff=True).get(path).status_code == 403


def test_where_no_server_runs_a_sentence_says_so(root: Client) -> None:
    page = text(root)
    assert "No django-prefork server runs here" in page and "runprefork" in page and "data-live" not in page
    for path in PARTS:
        text(root, path)


def test_the_admin_lists_it_for_those_who_may_look(viewer: Client) -> None:
    assert PAGE in text(viewer, "/admin/")
    assert PAGE not in text(signed_in("clerk", is_staff=True), "/admin/")
    assert viewer.get(f"{PAGE}add/").status_code == 404


def test_those_who_may_look_may_not_steer(viewer: Client, server: Told) -> None:
    assert "Reload" not in text(viewer)
    answer = viewer.post(f"{PAGE}reload/", {"csrfmiddlewaretoken": token(viewer)})
    assert answer.status_code == 403 and server.words == []


def test_actions_take_a_post_and_a_token(root: Client, server: Told) -> None:
    for path in (f"{PAGE}reload/", f"{PAGE}stacks/0/"):
        assert root.get(path).status_code == 405
        assert root.post(path).status_code == 403
    assert server.words == []


def test_a_reload_is_asked_for_by_name(server: Told) -> None:
    client = signed_in("ada \x1b[1m\n", is_staff=True, is_superuser=True)
    answer = client.post(f"{PAGE}reload/", {"csrfmiddlewaretoken": token(client)})
    assert answer.status_code == 302 and "A reload begins" in text(client)
    assert server.words == [r"reload ada \x1b[1m\n at the dashboard"]


def test_a_reload_that_nobody_hears_is_no_success(root: Client, server: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_say", None)
    root.post(f"{PAGE}reload/", {"csrfmiddlewaretoken": token(root)})
    assert "This process is no worker of a server." in text(root)


def test_stacks_of_a_worker_that_is_not_there_are_refused_in_a_sentence(viewer: Client, server: Told) -> None:
    fields = {"csrfmiddlewaretoken": token(viewer)}
    part = viewer.post(f"{PAGE}stacks/5/", fields, headers={"X-Prefork-Part": "1"}).content.decode()
    assert "There is no worker in slot 5." in part and "<html" not in part
    # Without a script it is a page.
    page = viewer.post(f"{PAGE}stacks/5/", fields).content.decode()
    assert "There is no worker in slot 5." in page and "<html" in page and "Workers" in page


def test_what_a_client_sends_is_text(viewer: Client, server: Told) -> None:
    server.row.begin(b"<b>evil</b>\n<i>\nGET /<script>alert(1)</script>?secret HTTP/1.1", time.monotonic())
    for path in PARTS[:2]:
        page = text(viewer, path)
        assert "/&lt;script&gt;alert(1)" in page and "&lt;b&gt;evil" in page and "<script>alert" not in page
        assert "secret" not in page


def test_figures_are_the_same_in_every_language(
    viewer: Client, server: Told, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()  # and no later, however long the page takes
    monkeypatch.setattr(snapshot, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = "de", True
    server.board.occupy(0, 1234567)
    server.row.begin(b"\nGET / HTTP/1.1", now - 1.5)
    server.row.limit(60.0)
    page = text(viewer)
    assert "pid 1234567" in page and 'class="pf-fill" width="2.5"' in page and 'lang="en"' in page


def test_other_commands_do_not_miss_the_table() -> None:
    said = io.StringIO()
    call_command("dumpdata", "prefork", stdout=said)
    assert said.getvalue().strip() == "[]"
    call_command("makemigrations", "--check", "--dry-run", stdout=said)
    call_command("check", stdout=said)
