"""The site around the board: accounts, admin, sample data, settings."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import Client

from ..models import Measurement, Notice, SharedFile

ROOT = Path(__file__).resolve().parents[3]


def run_demo_data() -> str:
    output = io.StringIO()
    call_command("demo_data", stdout=output)
    return output.getvalue()


def settings_under(environ: dict[str, str]) -> dict[str, object]:
    """What the settings say in a fresh process with `environ`."""
    ask = (
        "import json; from demo_project import settings as s;"
        "database = s.DATABASES['default']['NAME'];"
        "print(json.dumps([str(database), str(s.MEDIA_ROOT), s.DEBUG, s.ALLOWED_HOSTS, s.SECRET_KEY]))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DEMO_")}
    done = subprocess.run(
        [sys.executable, "-c", ask], env=clean | environ, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return dict(zip(("database", "uploads", "debug", "hosts", "key"), json.loads(done.stdout), strict=True))


@pytest.mark.django_db
def test_demo_data_fills_an_empty_board_and_lets_its_admin_in(client: Client) -> None:
    said = run_demo_data()
    assert "password admin" in said
    assert (Notice.objects.count(), Measurement.objects.count(), SharedFile.objects.count()) == (137, 10_000, 1)
    response = client.post("/accounts/login/", {"username": "admin", "password": "admin"})
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert client.get("/admin/").status_code == 200


@pytest.mark.django_db
def test_demo_data_can_run_again_and_changes_nothing(client: Client) -> None:
    run_demo_data()
    Notice.objects.filter(pinned=False).delete()
    assert "already there" in run_demo_data()
    assert (Notice.objects.count(), Measurement.objects.count(), SharedFile.objects.count()) == (1, 10_000, 1)


@pytest.mark.django_db
def test_signing_out_takes_a_post_and_leads_home(admin_client: Client) -> None:
    assert "Sign out admin" in admin_client.get("/").text
    response = admin_client.post("/accounts/logout/")
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert "Sign in" in admin_client.get("/").text


@pytest.mark.django_db
def test_a_wrong_password_is_told_so(client: Client) -> None:
    response = client.post("/accounts/login/", {"username": "admin", "password": "wrong"})
    assert response.status_code == 200
    assert 'class="errorlist nonfield"' in response.text


@pytest.mark.django_db
@pytest.mark.parametrize("model", ["notice", "sharedfile", "measurement"])
def test_the_admin_lists_everything(admin_client: Client, model: str) -> None:
    run_demo_data()
    assert admin_client.get(f"/admin/board/{model}/").status_code == 200


@pytest.mark.django_db
def test_the_admin_asks_a_stranger_to_sign_in(client: Client) -> None:
    assert client.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"


@pytest.mark.parametrize("name", ["board/style.css", "board/favicon.svg", "admin/css/base.css"])
def test_static_files_are_found(name: str) -> None:
    assert finders.find(name) is not None


@pytest.mark.django_db
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_environment_moves_the_data_and_closes_the_site(tmp_path: Path) -> None:
    data = tmp_path / "some" / "where"
    told = settings_under(
        {
            "DEMO_DATA_DIR": str(data),
            "DEMO_DEBUG": "0",
            "DEMO_ALLOWED_HOSTS": "board.example, [::1],",
            "DEMO_SECRET_KEY": "k",
        }
    )
    assert told == {
        "database": str(data / "db.sqlite3"),
        "uploads": str(data / "uploads"),
        "debug": False,
        "hosts": ["board.example", "[::1]"],
        "key": "k",
    }
    assert data.is_dir()


def test_with_nothing_in_the_environment_the_site_is_a_demo(tmp_path: Path) -> None:
    told = settings_under({"DEMO_DATA_DIR": str(tmp_path)})
    assert (told["debug"], told["hosts"]) == (True, ["localhost", "127.0.0.1", "[::1]"])
