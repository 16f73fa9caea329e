"""Files: uploaded through a form, listed with their digest, downloaded byte for byte."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks

from ..models import SharedFile

pytestmark = pytest.mark.django_db

# Past FILE_UPLOAD_MAX_MEMORY_SIZE (2.5 MiB), Django writes the upload to a temporary file.
SMALL, LARGE = 1000, 3 * 2**20


def upload(client: Client, data: bytes, name: str = "data.bin") -> SharedFile:
    response = client.post("/files/", {"file": SimpleUploadedFile(name, data)})
    assert response.status_code == 302, response.text
    shared = SharedFile.objects.latest("pk")
    assert response.headers["Location"] == f"/files/{shared.pk}/"
    return shared


def download(client: Client, shared: SharedFile, **headers: str) -> tuple[dict[str, str], bytes]:
    response = client.get(f"/files/{shared.pk}/download/", headers=headers)
    assert response.status_code == 200
    return dict(response.headers), b"".join(response)


@pytest.mark.parametrize("size", [1, SMALL, LARGE])
def test_a_file_comes_back_as_it_went(client: Client, size: int) -> None:
    data = random.Random(size).randbytes(size)
    shared = upload(client, data)
    assert (shared.name, shared.size, shared.sha256) == ("data.bin", size, hashlib.sha256(data).hexdigest())
    headers, body = download(client, shared)
    assert body == data
    assert headers["Content-Length"] == str(size)
    assert headers["Content-Disposition"] == 'attachment; filename="data.bin"'


def test_an_upload_leaves_nothing_but_the_file(client: Client, uploads: Path) -> None:
    upload(client, bytes(LARGE))
    assert [path.name for path in uploads.parent.rglob("*") if path.is_file()] == ["data.bin"]


def test_a_download_is_never_compressed_and_keeps_its_length(client: Client) -> None:
    shared = upload(client, b"a" * SMALL, "plain.txt")
    headers, body = download(client, shared, **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in headers
    assert headers["Content-Length"] == str(len(body)) == str(SMALL)


def test_two_files_of_one_name_do_not_meet(client: Client) -> None:
    first, second = upload(client, b"one"), upload(client, b"two")
    assert first.name == second.name
    assert [download(client, shared)[1] for shared in (first, second)] == [b"one", b"two"]


def test_a_name_cannot_lead_out_of_the_folder(client: Client, uploads: Path) -> None:
    shared = upload(client, b"x", "../../etc/passwd")
    assert shared.name == "passwd"
    assert Path(shared.file.path).parent == uploads


def test_a_name_beyond_ascii_survives(client: Client) -> None:
    shared = upload(client, b"x", "naïve café.txt")
    headers, _ = download(client, shared)
    assert shared.name == "naïve café.txt"
    assert headers["Content-Disposition"] == "attachment; filename*=utf-8''na%C3%AFve%20caf%C3%A9.txt"


def test_the_form_carries_a_csrf_token_and_needs_it() -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.post("/files/", {"file": SimpleUploadedFile("a", b"x")}).status_code == 403
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', client.get("/files/").text)
    assert token is not None
    fields = {"file": SimpleUploadedFile("a", b"x"), "csrfmiddlewaretoken": token[1]}
    assert client.post("/files/", fields).status_code == 302


@pytest.mark.parametrize("fields", [{}, {"file": ""}, {"file": SimpleUploadedFile("empty", b"")}])
def test_no_file_is_no_upload(client: Client, fields: dict[str, object]) -> None:
    response = client.post("/files/", fields)
    assert response.status_code == 200
    assert 'class="errorlist"' in response.text
    assert not SharedFile.objects.exists()


def test_pages_and_api_show_the_digest(client: Client) -> None:
    shared = upload(client, b"x")
    assert shared.sha256[:12] in client.get("/files/").text
    assert shared.sha256 in client.get(f"/files/{shared.pk}/").text
    told = client.get(f"/api/files/{shared.pk}/").json()
    assert (told["name"], told["size"], told["sha256"]) == ("data.bin", 1, shared.sha256)
    assert told["download"] == f"/files/{shared.pk}/download/"


def test_a_download_is_304_for_who_has_it(client: Client) -> None:
    shared = upload(client, b"x")
    headers, _ = download(client, shared)
    again = client.get(f"/files/{shared.pk}/download/", headers={"If-None-Match": headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_head_tells_the_length_of_a_download(client: Client) -> None:
    shared = upload(client, bytes(SMALL))
    response = client.head(f"/files/{shared.pk}/download/")
    assert response.headers["Content-Length"] == str(SMALL)
    response.close()


@pytest.mark.parametrize("path", ["/files/1/", "/files/1/download/", "/api/files/1/"])
def test_a_file_that_is_not_there_is_404(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_file_that_vanished_from_the_disk_is_404(client: Client) -> None:
    shared = upload(client, b"x")
    Path(shared.file.path).unlink()
    assert client.get(f"/files/{shared.pk}/download/").status_code == 404


def test_deleting_a_file_in_the_admin_removes_its_bytes(
    admin_client: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    shared = upload(admin_client, b"x")
    path = Path(shared.file.path)
    with django_capture_on_commit_callbacks(execute=True):
        admin_client.post(f"/admin/board/sharedfile/{shared.pk}/delete/", {"post": "yes"})
        assert path.exists(), "a rollback would want it back"
    assert not path.exists()
    assert not SharedFile.objects.exists()


def test_a_file_added_in_the_admin_gets_its_digest(admin_client: Client) -> None:
    admin_client.post("/admin/board/sharedfile/add/", {"file": SimpleUploadedFile("a.txt", b"x")})
    shared = SharedFile.objects.get()
    assert (shared.name, shared.size, shared.sha256) == ("a.txt", 1, hashlib.sha256(b"x").hexdigest())
    change = admin_client.get(f"/admin/board/sharedfile/{shared.pk}/change/").text
    assert 'type="file"' not in change
