"""What a view learns of its server (`django_prefork.status`)."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from django_prefork import status
from tests.harness import Clients, Server, eventually
from tests.observing.tools import django, end


def inside(server: Server) -> Any:
    return json.loads(server.get("/inside/")[1])


def serving(server: Server, view: str) -> Any:
    """The workers whose request is for this view."""
    return [worker for worker in inside(server)["workers"] if worker["request"] and worker["request"]["view"] == view]


def test_outside_of_a_server_there_is_nothing_to_tell() -> None:
    assert status.snapshot() is None and status.last_hour() == []


def test_a_stuck_request_is_named_with_its_view_and_its_client_and_its_stacks() -> None:
    with django("--workers", "2", "--timeout", "60", "--handoff-after", "0").ready() as server:
        server.ask("/sleep/20/?secret=1", "X-Request-ID: abc-123")
        (worker,) = eventually(lambda: serving(server, "tests.site.urls.Sleep"), "the request is seen")
        request = worker["request"]
        assert (request["method"], request["path"], request["client"]) == ("GET", "/sleep/20/", "127.0.0.1")
        assert (request["id"], request["limit"], worker["state"]) == ("abc-123", 60.0, "busy")
        assert 0 <= request["age"] < 30 and worker["pid"] in server.workers()
        stacks = server.get(f"/inside/?stacks={worker['slot']}")[1].decode()
        assert "time.sleep" not in stacks and "urls.py" in stacks and "in get" in stacks
        # Again, and not both after each other.
        assert server.get(f"/inside/?stacks={worker['slot']}")[1].decode().count("in get\n") == 1
        assert server.get("/inside/?stacks=500") == (409, b"There is no worker in slot 500.")
        os.kill(worker["pid"], signal.SIGKILL)
        server.errors = "SIGKILL"
        server.wait_for("was ended by SIGKILL")
        (restart,) = eventually(lambda: inside(server)["restarts"], "the end is told")
        assert (restart["pid"], restart["reason"]) == (worker["pid"], "killed")
        assert 'was ended by SIGKILL while serving "GET /sleep/20/' in restart["text"]


def test_a_stream_is_told_as_one_with_the_age_of_its_request() -> None:
    with django("--workers", "2").ready() as server:
        sock = server.ask("/stream/?s=0.1&last=5")
        sock.recv(1000)
        (worker,) = eventually(
            lambda: [worker for worker in inside(server)["workers"] if worker["state"] == "streaming"], "a stream"
        )
        age = worker["request"]["age"]
        later = eventually(
            lambda: [worker for worker in inside(server)["workers"] if worker["state"] == "streaming"], "a stream"
        )
        assert later[0]["request"]["age"] > age and worker["request"]["view"] == "tests.site.urls.stream"


def test_counters_outlive_a_killed_worker_and_a_reload() -> None:
    with django("--workers", "2", errors="SIGKILL|Internal Server Error").ready() as server:
        with Clients(server, 2, "/", keep_alive=True) as clients:
            clients.some_more(50)
        for _ in range(3):
            server.get("/boom/")
        # An answer is counted once it is sent: a worker that is killed in between takes one with it.
        eventually(lambda: inside(server)["totals"]["answers"]["5xx"] == 3, "the answers are counted")
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait_for("was ended by SIGKILL")
        server.full_strength(2)
        server.get("/inside/?reload=someone")
        server.wait_for("asks for a reload: someone")
        server.ready(generation=2)
        server.wait_for("arbiter gen=1 leaves")
        told = eventually(lambda: len((told := inside(server))["generations"]) == 1 and told, "one generation")
        asked = len(clients.answers) + 3 + 1
        # And as often as this was asked for.
        assert asked <= told["totals"]["requests"] <= asked + len(clients.failures) + 100
        assert told["totals"]["answers"]["5xx"] == 3 and told["totals"]["received"] > 50 * asked
        assert [generation["number"] for generation in told["generations"]] == [2]
        assert told["restarted"]["reload"] == 2 and told["restarted"]["killed"] == 1
        assert {worker["generation"] for worker in told["workers"]} == {2}
        assert sum(worker["requests"] for worker in told["workers"]) < 100
        assert told["state"] == "ready" and told["pid"] == server.pid and told["application"]["p99"] < 10
        assert json.loads(server.get("/inside/?hour")[1])["requests"]


def test_a_worker_of_another_generation_is_asked_for_its_stacks_too() -> None:
    with django("--workers", "1", "--timeout", "60").ready() as server:
        server.ask("/sleep/20/")
        server.wait_for("sleeping")
        server.kill(signal.SIGHUP)
        server.ready(generation=2)

        def old() -> dict[str, Any] | None:
            (worker,) = serving(server, "tests.site.urls.Sleep")
            return worker if worker["leaving"] else None

        worker = eventually(old, "the old worker is told to leave")
        assert worker["generation"] == 1
        assert "in get" in server.get(f"/inside/?stacks={worker['slot']}")[1].decode()
        end(server)


def test_memory_is_weighed_and_connections_are_counted() -> None:
    with django("--workers", "1").ready() as server:
        socks = [server.ask() for _ in range(5)]
        for sock in socks:
            sock.recv(1000)
        socks[0].sendall(b"GET / HT")

        def weighed() -> Any:
            (worker,) = inside(server)["workers"]
            # Six with the one that asks.
            return worker if worker["private"] and worker["connections"] == 6 and worker["active"] else None

        worker = eventually(weighed, "memory and connections")
        assert worker["private"] > 1 << 20 and worker["shared"] > 1 << 20
        (listener,) = inside(server)["listeners"]
        assert listener["waiting"] == 0 and listener["limit"] > 0
