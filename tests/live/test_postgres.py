"""A test database on PostgreSQL is shared as it is, and can be removed when the server is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.test_runs import run_of_django, running

psycopg = pytest.importorskip("psycopg")

from tests.postgres import database  # noqa: E402 - it needs the driver


def test_both_sides_write_and_a_pool_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.running() as folder:
        monkeypatch.setenv("SITE_POSTGRES", str(folder))
        # Connections that are kept: removing the database would fail while there is one.
        monkeypatch.setenv("SITE_POOL", "1")
        with running(tmp_path, *run_of_django("cases")) as run:
            status, output = run.end()
        assert status == 0, output
        assert "Ran 6 tests" in output
        with psycopg.connect(host=str(folder), user=database.OWNER, dbname="postgres") as connection:
            names = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
        assert "test_site" not in names
