"""A real PostgreSQL: no connection is shared, none is lost, none is left."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.harness import Clients, Server, eventually
from tests.postgres import database

WAYS = {
    "psycopg": ("psycopg", {}),
    "psycopg-persistent": ("psycopg", {"CONN_MAX_AGE": 60}),
    "psycopg-pool": ("psycopg", {"pool": {"min_size": 1, "max_size": 2}}),
    "psycopg2": ("psycopg2", {}),
    "psycopg2-waiting": ("psycopg2", {"CONN_MAX_AGE": 60, "wait": True}),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    with database.running() as folder:
        yield folder


class Site(Server):
    def __init__(self, folder: Path, way: str, *arguments: str, errors: str = "", **environment: str) -> None:
        self.folder = folder
        self.name = uuid.uuid4().hex
        driver, options = WAYS[way]
        super().__init__(
            *arguments,
            settings="tests.postgres.settings",
            application="",
            environment={
                "TEST_DATABASE": str(folder),
                "TEST_NAME": self.name,
                "TEST_DRIVER": driver,
                "TEST_OPTIONS": json.dumps(options),
                **environment,
            },
            errors=errors,
        )

    def backends(self, condition: str = "true") -> list[int]:
        """Connections that PostgreSQL has of this server."""
        with psycopg.connect(host=str(self.folder), user=database.OWNER, dbname="postgres") as connection:
            found = connection.execute(
                f"SELECT pid FROM pg_stat_activity WHERE application_name = %s AND {condition}", [self.name]
            )
            return [pid for (pid,) in found.fetchall()]

    def ask(self, path: str = "/") -> dict[str, Any]:
        status, body = self.get(path)
        assert status == 200, self.log
        answer: dict[str, Any] = json.loads(body)
        return answer


@pytest.mark.parametrize("way", ["psycopg-persistent", "psycopg-pool", "psycopg2"])
def test_no_connection_is_shared_or_left_over_fork_kill_recycling_and_reload(postgres: Path, way: str) -> None:
    options = ("--workers", "2", "--max-requests", "150", "--warmup", "/")
    with Site(postgres, way, *options, errors="was ended by SIGKILL|closed the connection|server closed") as server:
        server.ready()
        with Clients(server, 3, keep_alive=True) as kept, Clients(server, 1) as fresh:
            server.kill(signal.SIGKILL, server.full_strength(2)[0])
            server.wait_for(r"worker=\d+ gen=1 pid=\d+ ready", times=3)
            server.wait_for("asks for a successor: max_requests")
            server.kill(signal.SIGHUP)
            server.ready(2)
            server.wait_for("arbiter gen=1 leaves")
            kept.some_more(50)
        answers = kept.answers + fresh.answers
        # The killed worker may have had a request, and connections that wait.
        assert len(kept.failures + fresh.failures) <= 4
        assert {status for status, _ in answers} == {200}, [body for status, body in answers if status != 200][:3]
        used: dict[int, set[int]] = {}
        for _, body in answers:
            answer = json.loads(body)
            assert answer["driver"] == WAYS[way][0]
            used.setdefault(answer["backend"], set()).add(answer["worker"])
        assert {len(workers) for workers in used.values()} == {1}, "each backend serves one worker in its life"
        assert len({worker for workers in used.values() for worker in workers}) >= 5
        assert server.count("arbiter has backend") >= 3
        assert server.stop() == 0
        eventually(lambda: not server.backends(), "no connection is left")


@pytest.mark.parametrize("way", ["psycopg", "psycopg2", "psycopg-pool"])
def test_the_connection_of_a_thread_beside_the_arbiter_survives_its_workers(postgres: Path, way: str) -> None:
    with Site(postgres, way, "--workers", "2", errors="was ended by SIGKILL", TEST_THREAD="1") as server:
        server.ready()
        first = server.wait_for(r"thread has backend (\d+)")[1]
        assert server.ask()["backend"] != int(first)
        victim, other = server.full_strength(2)
        server.kill(signal.SIGTERM, victim)
        assert server.wait_for(r"thread has backend (\d+)", times=2)[1] == first
        server.kill(signal.SIGKILL, other)
        assert server.wait_for(r"thread has backend (\d+)", times=3)[1] == first
        server.full_strength(2)
        assert server.ask()["backend"] != int(first)
        assert server.count(r"\[WARNING\] thread 'answerer' \(tests\.postgres\.site\.answer_for_ever\)") == 1
        assert server.count(rf"\[WARNING\] a connection to {postgres}/\.s\.PGSQL\.\d+ was opened before") == 1


def test_an_idle_worker_closes_connections_older_than_conn_max_age(
    postgres: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WAYS, "short", ("psycopg", {"CONN_MAX_AGE": 1}))
    with Site(postgres, "short", "--workers", "1", "--warmup", "/") as server:
        server.ready()
        mine = server.ask()["backend"]
        assert mine in server.backends()
        eventually(lambda: mine not in server.backends(), "nobody asks, and it is closed")
        assert server.ask()["backend"] != mine


@pytest.mark.parametrize("way", ["psycopg", "psycopg-persistent", "psycopg-pool", "psycopg2-waiting"])
def test_after_a_late_request_its_query_is_gone_and_the_next_one_does_not_fail(postgres: Path, way: str) -> None:
    with Site(postgres, way, "--workers", "1", "--timeout", "0.5", errors=r"Internal Server Error: /sleep/") as server:
        server.ready()
        old = server.ask()["worker"]
        assert server.get("/sleep/?s=60")[0] == 500
        for _ in range(5):
            server.ask()
        eventually(lambda: not server.backends("state = 'active' AND query ~ 'pg_sleep'"), "it is cancelled")
        server.wait_for(r"worker=\d+ gen=1 pid=\d+ asks for a successor")
        eventually(lambda: server.ask()["worker"] != old, "a successor serves")
        assert server.count("RequestTimeout: the request took longer") == 1
