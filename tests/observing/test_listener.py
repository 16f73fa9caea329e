"""The status listener: what it tells, and what it bears."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Clients, Server, eventually, send
from tests.observing.tools import end, metrics, status_port, stuck, tell, told, watched


def test_while_all_workers_are_stuck_everything_is_told_and_the_requests_are_named() -> None:
    with watched("--workers", "3", "--timeout", "60").ready() as server:
        assert tell(server, "/ready") == (200, "ready\n")
        stuck(server, 3)
        eventually(lambda: tell(server, "/ready")[0] == 503, "not ready when nobody can take a request")
        assert "each of 3 workers is busy" in tell(server, "/ready")[1]
        assert tell(server, "/live") == (200, "live\n")
        requests = [worker["request"] for worker in told(server)["workers"]]
        assert [(request["path"], request["view"]) for request in requests] == [
            ("/sleep/20/", "tests.site.urls.Sleep")
        ] * 3
        counted = metrics(server)
        assert counted["prefork_workers"][(("state", "busy"),)] == 3
        assert counted["prefork_busy_ratio"][()] == 1 and counted["prefork_ready"][()] == 0
        # Another one waits in the kernel, or in the queue of those whose workers are busy.
        server.ask("/")
        eventually(lambda: metrics(server)["prefork_waiting"][()] == 1, "one waits")
        assert metrics(server)["prefork_saturation_ratio"][()] == pytest.approx(4 / 3)
        end(server)


def test_the_metrics_are_what_prometheus_asks_for() -> None:
    with watched("--workers", "2").ready() as server:
        with Clients(server, 2, keep_alive=True) as clients:
            clients.some_more(30)
        server.get("/nowhere/")
        eventually(lambda: metrics(server)["prefork_worker_private_bytes"][(("slot", "1"),)] > 0, "memory is weighed")
        status, text = tell(server, "/metrics")
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        for name, family in families.items():
            assert name.startswith("prefork_") and family.documentation.endswith((".", "troubles."))
            assert family.type in ("counter", "gauge", "histogram") and family.samples, name
            if family.type == "counter":
                assert all(sample.name.endswith("_total") for sample in family.samples)
            if family.type == "histogram":
                counts = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
                (count,) = (sample.value for sample in family.samples if sample.name.endswith("_count"))
                assert counts == sorted(counts) and counts[-1] == count >= 31
        assert {family.type for family in families.values()} == {"counter", "gauge", "histogram"}
        counted = metrics(server)
        requests = counted["prefork_requests_total"]
        assert requests[(("code", "2xx"),)] == len(clients.answers) and requests[(("code", "4xx"),)] == 1
        assert counted["prefork_request_duration_seconds_sum"][()] > 0
        assert counted["prefork_received_bytes_total"][()] > 1000 and counted["prefork_sent_bytes_total"][()] > 1000
        assert counted["prefork_response_size_bytes_count"][()] == sum(requests.values())


def test_a_server_that_drains_is_alive_and_not_ready() -> None:
    with watched("--workers", "1", "--drain-delay", "60").ready() as server:
        assert tell(server, "/ready")[0] == 200
        server.kill()
        server.wait_for("draining")
        assert tell(server, "/ready") == (503, "the server is about to stop\n")
        assert tell(server, "/live")[0] == 200 and told(server)["state"] == "draining"
        server.insist()
        assert server.wait() == 0


def test_before_all_workers_are_ready_it_is_booting() -> None:
    with Server(
        "--workers", "1", "--status-bind", "127.0.0.1:0", application="never_ready", errors="9|failed"
    ) as server:
        server.wait_for("exited with status 9")
        assert tell(server, "/ready") == (503, "not all workers have started\n")
        assert tell(server, "/live")[0] == 200


def test_other_paths_and_methods_and_what_is_no_http() -> None:
    with watched("--workers", "1").ready() as server:
        assert tell(server, "/")[0] == 404 and "/metrics" in tell(server, "/")[1]
        assert tell(server, "/ready", "POST")[0] == 405
        assert tell(server, "/ready", "HEAD") == (200, "")
        for mistake in (b"hello\r\n\r\n", b"GET /" + b"x" * 50_000, b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", status_port(server)), timeout=30) as sock:
                sock.sendall(mistake)
                assert sock.recv(100).startswith(b"HTTP/1.1 4")


def test_one_port_after_a_reload_and_after_the_arbiter_is_lost() -> None:
    with watched("--workers", "1", errors="SIGKILL").ready() as server:
        server.kill(signal.SIGHUP)
        server.ready(2)
        server.wait_for("arbiter gen=1 leaves")
        assert tell(server, "/ready")[0] == 200
        assert [generation["number"] for generation in told(server)["generations"]][-1] == 2
        server.kill(signal.SIGKILL, server.arbiter(2))
        server.ready(3)
        assert tell(server, "/ready")[0] == 200


def test_a_unix_socket_is_its_owners_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    with Server("--workers", "1", "--status-bind", f"unix:{path}", "--umask", "000").ready() as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(path))
            send(sock, "/ready")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        server.stop()
        assert not path.exists()


def test_a_port_that_is_taken_is_said_and_nothing_was_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Server("--status-bind", f"127.0.0.1:{port}") as server:
            assert server.wait() == 1
            assert f"Cannot listen on 127.0.0.1:{port}: that port is already in use" in server.log


def test_clients_that_say_nothing_or_little_do_not_keep_the_arbiter_from_its_workers() -> None:
    with watched("--workers", "1", errors="SIGKILL").ready() as server:
        port = status_port(server)
        socks: list[socket.socket] = []
        try:
            for number in range(300):
                socks.append(socket.create_connection(("127.0.0.1", port), timeout=30))
                if number % 2:
                    socks[-1].sendall(b"G")
            # Who asks is answered all the same, and a dead worker replaced.
            assert tell(server, "/live")[0] == 200
            (worker,) = server.workers()
            server.kill(signal.SIGKILL, worker)
            server.wait_for("was ended by SIGKILL")
            server.wait_for("worker=.* ready", times=2)
            assert tell(server, "/ready")[0] == 200
            # Few are kept.
            assert len(os.listdir(f"/proc/{server.arbiter()}/fd")) < 64 + 40
        finally:
            for sock in socks:
                sock.close()


def test_who_asks_for_all_and_reads_nothing_is_sent_away() -> None:
    with watched("--workers", "1").ready() as server:
        socks = [socket.create_connection(("127.0.0.1", status_port(server)), timeout=30) for _ in range(100)]
        for sock in socks:
            send(sock, "/status.json")
        began = time.monotonic()
        assert tell(server, "/live")[0] == 200
        assert time.monotonic() - began < 30
        for sock in socks:
            sock.close()


def test_the_health_path_has_both_answers_on_the_main_port() -> None:
    with Server("--workers", "1", "--health-path", "/-/up").ready() as server:
        assert server.get("/-/up") == server.get("/-/up/ready") == (200, b"ready\n")
        assert server.get("/-/up/live") == (200, b"live\n")
        assert server.get("/-/up/other") == (200, b"hello\n")
