"""Notices: read, listed page by page, posted, and told as JSON."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from ..models import Notice

pytestmark = pytest.mark.django_db


def make_notices(number: int) -> None:
    """Notices called "Notice 0" (the newest) and so on."""
    now = timezone.now()
    Notice.objects.bulk_create(
        Notice(title=f"Notice {age}", body="Text.", created_at=now - timedelta(hours=age)) for age in range(number)
    )


def titles(html: str) -> list[str]:
    return re.findall(r"<h2><a [^>]*>([^<]+)</a></h2>", html)


def test_an_empty_board_says_so(client: Client) -> None:
    assert "Nothing here yet" in client.get("/").text


def test_the_newest_twenty_come_first(client: Client) -> None:
    make_notices(45)
    assert titles(client.get("/").text) == [f"Notice {age}" for age in range(20)]


def test_the_last_page_holds_the_rest(client: Client) -> None:
    make_notices(45)
    response = client.get("/?page=3")
    assert titles(response.text) == [f"Notice {age}" for age in range(40, 45)]
    assert '<a href="?page=2" rel="prev">' in response.text
    assert 'rel="next"' not in response.text
    assert '<a href="?page=3" aria-current="page"' in response.text


@pytest.mark.parametrize(("asked", "shown"), [("0", 3), ("99", 3), ("-1", 3), ("soon", 1), ("", 1)])
def test_a_page_that_is_not_there_becomes_one_that_is(client: Client, asked: str, shown: int) -> None:
    make_notices(45)
    response = client.get("/", {"page": asked})
    assert response.status_code == 200
    assert response.context["page"].number == shown


def test_one_page_needs_no_page_links(client: Client) -> None:
    make_notices(20)
    assert 'class="pages"' not in client.get("/").text


def test_a_pinned_notice_stays_on_top(client: Client) -> None:
    make_notices(3)
    Notice.objects.filter(title="Notice 2").update(pinned=True)
    assert titles(client.get("/").text) == ["Notice 2", "Notice 0", "Notice 1"]


def test_a_notice_has_a_page_where_its_text_is_text(client: Client) -> None:
    notice = Notice.objects.create(title="A <b>bold</b> claim", body="First.\n\nSecond <script>.", author="Ada")
    html = client.get(f"/notices/{notice.pk}/").text
    assert "A &lt;b&gt;bold&lt;/b&gt; claim" in html
    assert "<p>Second &lt;script&gt;.</p>" in html
    assert "Ada" in html


def test_a_notice_that_is_not_there_is_404(client: Client) -> None:
    response = client.get("/notices/1/")
    assert response.status_code == 404
    assert "Nothing here" in response.text


def test_anybody_can_post_a_notice_through_the_form() -> None:
    client = Client(enforce_csrf_checks=True)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', client.get("/notices/new/").text)
    assert token is not None
    fields = {"title": "Hello", "body": "World", "author": "", "csrfmiddlewaretoken": token[1]}
    response = client.post("/notices/new/", fields, follow=True)
    notice = Notice.objects.get()
    assert response.redirect_chain == [(f"/notices/{notice.pk}/", 302)]
    assert "Your notice is on the board." in response.text
    assert (notice.title, notice.body, notice.author, notice.pinned) == ("Hello", "World", "", False)


def test_a_post_without_the_csrf_token_is_refused() -> None:
    response = Client(enforce_csrf_checks=True).post("/notices/new/", {"title": "Hello", "body": "World"})
    assert response.status_code == 403
    assert not Notice.objects.exists()


@pytest.mark.parametrize("fields", [{}, {"title": "Hello"}, {"title": "x" * 121, "body": "World"}])
def test_a_form_with_mistakes_comes_back_with_them(client: Client, fields: dict[str, str]) -> None:
    response = client.post("/notices/new/", fields)
    assert response.status_code == 200
    assert 'class="errorlist"' in response.text
    assert not Notice.objects.exists()


def test_a_visitor_who_signed_in_finds_their_name_filled_in(admin_client: Client) -> None:
    assert 'value="admin"' in admin_client.get("/notices/new/").text


def test_the_api_tells_a_page_of_notices(client: Client) -> None:
    make_notices(21)
    first = client.get("/api/notices/").json()
    assert (first["count"], first["page"], first["pages"], len(first["notices"])) == (21, 1, 2, 20)
    (last,) = client.get("/api/notices/?page=2").json()["notices"]
    assert last["title"] == "Notice 20"
    assert client.get(last["url"]).status_code == 200


def test_an_unchanged_page_is_304_for_who_has_it(client: Client) -> None:
    make_notices(3)
    tag = client.get("/").headers["ETag"]
    again = client.get("/", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    Notice.objects.latest("pk").delete()
    assert client.get("/", headers={"If-None-Match": tag}).status_code == 200


def test_a_page_is_compressed_for_who_accepts_it(client: Client) -> None:
    make_notices(20)
    response = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(titles(gzip.decompress(response.content).decode())) == 20


@pytest.mark.parametrize("path", ["/", "/notices/new/", "/files/", "/api/notices/", "/export.csv", "/whoami"])
def test_head_is_answered_wherever_get_is(client: Client, path: str) -> None:
    response = client.head(path)
    assert response.status_code == 200
    response.close()


@pytest.mark.parametrize("path", ["/", "/api/notices/", "/export.csv", "/report/", "/cpu/", "/whoami"])
def test_a_page_that_takes_no_form_refuses_post(client: Client, path: str) -> None:
    assert client.post(path).status_code == 405
