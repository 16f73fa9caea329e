"""The demo project, served by the real server and used as people use it."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.demo import with_data
from tests.harness import Server


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("demo")
    arguments = ("--workers", "3", "--bind", f"unix:{folder}/socket")
    with Server(*arguments, settings="demo_project.settings", environment=with_data(folder / "data")) as server:
        server.ready()
        server.socket = folder / "socket"  # type: ignore[attr-defined]
        yield server


@pytest.fixture
def session(demo: Server) -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def url(demo: Server) -> str:
    return f"http://127.0.0.1:{demo.port}"


def token(page: requests.Response) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found
    return found[1]


def test_the_admin_lets_its_user_in(session: requests.Session, url: str) -> None:
    page = session.get(f"{url}/admin/login/")
    form = {"username": "admin", "password": "admin", "csrfmiddlewaretoken": token(page), "next": "/admin/"}
    answer = session.post(f"{url}/admin/login/", data=form)
    assert answer.status_code == 200 and "Site administration" in answer.text
    assert session.get(f"{url}/static/admin/css/base.css").headers["Content-Type"] == "text/css"


def test_a_notice_goes_in_through_the_form_and_is_read_back(session: requests.Session, url: str) -> None:
    form = {"title": "Lost: a grey cat", "body": "She answers to Ümlaut.", "author": "Ann"}
    assert session.post(f"{url}/notices/new/", data=form).status_code == 403  # without the token
    form["csrfmiddlewaretoken"] = token(session.get(f"{url}/notices/new/"))
    answer = session.post(f"{url}/notices/new/", data=form)
    assert answer.status_code == 200 and "She answers to Ümlaut." in answer.text
    assert "Lost: a grey cat" in session.get(f"{url}/").text


def test_pages_follow_one_another(session: requests.Session, url: str) -> None:
    first, second = (session.get(f"{url}/", params={"page": page}).text for page in (1, 2))
    assert first != second
    beyond = session.get(f"{url}/", params={"page": "99999"})
    assert beyond.status_code == 200 and re.search(r"<title>Notices, page \d+ ", beyond.text), "the last one"


def test_50_mib_go_up_and_come_down_unchanged(session: requests.Session, url: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 50
    form = {"csrfmiddlewaretoken": token(session.get(f"{url}/files/"))}
    answer = session.post(f"{url}/files/", data=form, files={"file": ("big.bin", data)})
    digest = hashlib.sha256(data).hexdigest()
    assert answer.status_code == 200 and digest in answer.text
    with session.get(f"{answer.url}download/", stream=True) as download:
        assert int(download.headers["Content-Length"]) == len(data)
        received = hashlib.sha256()
        for piece in download.iter_content(1 << 16):
            received.update(piece)
    assert received.hexdigest() == digest


def test_a_chunked_upload_arrives_whole(session: requests.Session, url: str) -> None:
    page = session.get(f"{url}/notices/new/")
    body = f"csrfmiddlewaretoken={token(page)}&title=Chunked&body=In+pieces&author=".encode()
    pieces = (body[at : at + 7] for at in range(0, len(body), 7))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = session.post(f"{url}/notices/new/", data=pieces, headers=headers)
    assert answer.status_code == 200 and "In pieces" in answer.text


def test_the_export_is_complete(session: requests.Session, url: str) -> None:
    answer = session.get(f"{url}/export.csv")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.text.count("\n") == 100_001


@pytest.mark.parametrize("path", ["/", "/api/notices/", "/export.csv", "/static/admin/css/base.css"])
def test_head_is_get_without_its_body(session: requests.Session, url: str, path: str) -> None:
    varying = {"Date", "Set-Cookie", "Expires", "ETag"}  # Django gives a tag to GET only
    session.headers["Accept-Encoding"] = "identity"  # and gzip a random length, against BREACH
    get, head = session.get(url + path), session.head(url + path)
    assert head.status_code == get.status_code == 200 and head.content == b""
    assert {k: v for k, v in head.headers.items() if k not in varying} == {
        k: v for k, v in get.headers.items() if k not in varying
    }
    assert session.get(f"{url}/whoami").status_code == 200  # the connection is in step


def test_what_the_client_has_already_is_not_sent_again(session: requests.Session, url: str) -> None:
    answer = session.get(f"{url}/api/notices/")
    again = session.get(f"{url}/api/notices/", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 and again.content == b"" and "Content-Length" not in again.headers


def test_gzip_for_who_accepts_it(url: str) -> None:
    answer = requests.get(f"{url}/", headers={"Accept-Encoding": "gzip"}, stream=True)
    with answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert b"</html>" in gzip.decompress(answer.raw.read(decode_content=False))


def test_the_same_over_a_unix_socket(demo: Server) -> None:
    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(demo.socket))  # type: ignore[attr-defined]

    connection = Connection("localhost")
    for _ in range(3):
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and b"</html>" in answer.read()
    connection.close()


def test_slow_and_failing_views(demo: Server, session: requests.Session, url: str) -> None:
    demo.errors = "Internal Server Error"
    assert session.get(f"{url}/report/", params={"seconds": "0.1"}).status_code == 200
    assert session.get(f"{url}/cpu/", params={"seconds": "0.1"}).status_code == 200
    assert session.get(f"{url}/boom/").status_code == 500
    assert {session.get(f"{url}/whoami").json()["generation"] for _ in range(5)} == {1}
