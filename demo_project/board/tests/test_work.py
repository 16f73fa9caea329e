"""The views that give a server something to do: long, slow, busy, broken, and who answers."""

from __future__ import annotations

import csv
import gzip
import io
import os
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client

from ..models import Measurement
from ..weather import reading


def export_rows(client: Client) -> list[list[str]]:
    response = client.get("/export.csv")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "Content-Length" not in response.headers
    return list(csv.reader(io.StringIO(b"".join(response).decode())))


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every time.sleep() that a view asked for, in seconds; none is slept."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


@pytest.mark.django_db
def test_the_export_has_a_header_and_100000_rows_on_an_empty_database(client: Client) -> None:
    rows = export_rows(client)
    assert len(rows) == 100_001
    assert rows[0] == ["station", "taken_at", "temperature", "humidity"]
    assert rows[1] == ["Harbour", "2025-01-01T00:00:00+00:00", str(reading(0).temperature), str(reading(0).humidity)]


@pytest.mark.django_db
def test_the_export_begins_with_what_is_stored(client: Client) -> None:
    taken_at = datetime(2020, 2, 29, 12, tzinfo=UTC)
    Measurement.objects.create(station="Attic", taken_at=taken_at, temperature=21.5, humidity=40.0)
    rows = export_rows(client)
    assert len(rows) == 100_001
    assert rows[1] == ["Attic", "2020-02-29T12:00:00+00:00", "21.5", "40.0"]
    assert rows[2][0] == reading(1).station


@pytest.mark.django_db
def test_the_export_comes_in_many_chunks_of_whole_lines(client: Client) -> None:
    chunks = list(client.get("/export.csv"))
    assert len(chunks) == 200
    assert all(chunk.endswith(b"\r\n") for chunk in chunks)


@pytest.mark.django_db
def test_an_export_can_be_left_in_its_middle(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # The end of a request would close the connection, and with it the test's transaction.
    monkeypatch.setattr(connections["default"], "close_if_unusable_or_obsolete", lambda: None)
    Measurement.objects.bulk_create(Measurement(**reading(number)._asdict()) for number in range(2000))
    response = client.get("/export.csv")
    chunks = iter(response)
    next(chunks)
    response.close()
    # SQLite refuses this while a cursor still reads from the table; the test's rollback brings the table back.
    connection.cursor().execute("DROP TABLE board_measurement")


@pytest.mark.django_db
def test_the_export_is_compressed_on_the_way(client: Client) -> None:
    response = client.get("/export.csv", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(b"".join(response)).count(b"\r\n") == 100_001


def test_a_reading_is_the_same_every_time_and_believable() -> None:
    series = [reading(number) for number in range(0, 300_000, 7)]
    assert series == [reading(number) for number in range(0, 300_000, 7)]
    assert all(-15 < row.temperature < 40 and 0 < row.humidity <= 100 for row in series)


@pytest.mark.django_db
def test_the_report_adds_up_each_station(client: Client, naps: list[float]) -> None:
    noon = datetime(2025, 6, 1, 12, tzinfo=UTC)
    Measurement.objects.bulk_create(
        Measurement(station="Attic", taken_at=noon, temperature=temperature, humidity=50)
        for temperature in (10.0, 20.0, 36.0)
    )
    response = client.get("/report/?seconds=0")
    (attic,) = response.context["stations"]
    assert (attic["readings"], attic["coldest"], attic["average"], attic["warmest"]) == (3, 10, 22, 36)
    assert f"Answered by process {os.getpid()}." in response.text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "slept"),
    [("", 2), ("?seconds=", 2), ("?seconds=0.5", 0.5), ("?seconds=-1", 0), ("?seconds=61", 60), ("?seconds=inf", 60)],
)
def test_the_report_sleeps_as_long_as_asked_within_bounds(
    client: Client, naps: list[float], query: str, slept: float
) -> None:
    assert client.get(f"/report/{query}").status_code == 200
    assert naps == [slept]


@pytest.mark.parametrize("path", ["/report/", "/cpu/"])
@pytest.mark.parametrize("text", ["soon", "nan", "1,5"])
def test_seconds_that_are_no_number_are_a_bad_request(client: Client, path: str, text: str) -> None:
    assert client.get(path, {"seconds": text}).status_code == 400


@pytest.mark.django_db
def test_the_busy_loop_takes_cpu_for_as_long_as_asked(client: Client) -> None:
    wall, cpu = time.perf_counter(), time.thread_time()
    response = client.get("/cpu/?seconds=0.1")
    assert response.status_code == 200
    assert response.context["rounds"] > 0
    assert time.perf_counter() - wall >= 0.1
    # On a busy machine the loop gets less than all of one CPU; asleep it would get nothing.
    assert time.thread_time() - cpu > 0.01


def test_boom_raises(client: Client) -> None:
    with pytest.raises(RuntimeError, match="always raises"):
        client.get("/boom/")


def test_a_visitor_sees_a_page_where_boom_raised(client: Client) -> None:
    client.raise_request_exception = False
    response = client.get("/boom/")
    assert response.status_code == 500
    assert "Something went wrong" in response.text
    assert "always raises" not in response.text


def test_whoami_tells_slot_and_generation_where_the_server_does(client: Client) -> None:
    environ: Any = {"prefork.slot": 3, "prefork.generation": 2}
    response = client.get("/whoami", **environ)
    assert response.json() == {"pid": os.getpid(), "ppid": os.getppid(), "slot": 3, "generation": 2}
    assert "no-store" in response.headers["Cache-Control"]


def test_whoami_knows_no_slot_on_other_servers(client: Client) -> None:
    response = client.get("/whoami")
    assert (response.json()["slot"], response.json()["generation"]) == (None, None)
