"""Workers that have served enough, and servers that stop slowly."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.harness import Clients, Server, eventually, read_answer


def test_a_worker_that_has_lived_long_enough_is_replaced_without_a_gap() -> None:
    with Server("--workers", "2", "--max-worker-lifetime", "2", application="work").ready() as server:
        old = server.full_strength(2)
        with Clients(server, 2, "/pid") as fresh, Clients(server, 2, "/pid", keep_alive=True) as kept:
            server.wait_for(r"asks for a successor: max_worker_lifetime 2 s", times=2)
            eventually(lambda: not set(old) & set(server.workers()), "both are replaced")
            fresh.some_more()
            kept.some_more()
        assert fresh.failures == [] and kept.failures == [] and kept.connections == 2


def test_a_worker_that_has_grown_is_replaced_between_requests() -> None:
    with Server("--workers", "1", "--max-rss", "60M", application="hungry").ready() as server:
        with Clients(server, 1, "/?mib=0", keep_alive=True) as kept:
            first = server.workers()
            assert server.get("/?mib=100")[0] == 200
            server.wait_for(r"asks for a successor: max_rss, 1\d\d MiB of its own")
            eventually(lambda: not set(first) & set(server.workers()), "it is replaced")
            kept.some_more()
        assert kept.failures == [] and kept.connections == 1


def test_shared_pages_are_not_counted() -> None:
    """The Arbiter holds 100 MiB that all workers share."""
    with Server("--workers", "1", "--max-rss", "60M", application="large.application").ready() as server:
        with Clients(server, 1) as clients:
            clients.some_more(200)
            time.sleep(2.5)  # prefork: ok (two looks at its memory)
        assert server.count("asks for a successor") == 0


def test_a_request_that_eats_the_machine_is_named_and_killed() -> None:
    arguments = ("--workers", "1", "--max-rss-hard", "200M")
    with Server(*arguments, application="hungry", errors="max_rss_hard|SIGKILL").ready() as server:
        with server.ask("/?mib=300&sleep=60") as sock:
            server.wait_for(r'killed: max_rss_hard, [23]\d\d MiB of its own serving "GET /\?mib=300&sleep=60 HTTP/1.1"')
            assert sock.recv(1) == b""
        assert server.get("/?mib=0")[0] == 200


def test_while_it_drains_it_is_not_ready_and_closes_but_serves() -> None:
    arguments = ("--workers", "1", "--drain-delay", "1", "--health-path", "/ready")
    with Server(*arguments, application="work").ready() as server:
        assert server.get("/ready")[0] == 200
        began = time.monotonic()
        server.kill(signal.SIGTERM)
        server.wait_for("SIGTERM: draining for 1 s")
        assert server.get("/ready")[0] == 503
        with server.ask("/pid") as sock:
            status, headers, _ = read_answer(sock)
            assert (status, headers["connection"]) == (200, "close")
        assert server.wait() == 0
        assert time.monotonic() - began >= 1.0


def test_a_second_term_cuts_the_drain_short() -> None:
    with Server("--workers", "1", "--drain-delay", "60").ready() as server:
        server.kill(signal.SIGTERM)
        server.wait_for("draining")
        server.insist()
        assert server.wait() == 0


@pytest.mark.parametrize("upgrade_first", [True, False])
def test_an_upgrade_does_not_make_it_forget_that_it_drains(upgrade_first: bool) -> None:
    with Server("--workers", "1", "--drain-delay", "1").ready() as server:
        orders = [signal.SIGTERM, signal.SIGUSR2]
        for order in reversed(orders) if upgrade_first else orders:
            server.kill(order)
        assert server.wait() == 0
        assert server.count("takes over") == 0


def test_clients_that_a_load_balancer_withdraws_while_it_drains_lose_nothing() -> None:
    with Server("--workers", "2", "--drain-delay", "1", application="work").ready() as server:
        with Clients(server, 2, "/pid") as fresh, Clients(server, 2, "/pid", keep_alive=True) as kept:
            server.kill(signal.SIGTERM)
            server.wait_for("draining")
            fresh.some_more()
            kept.some_more()
        assert server.wait() == 0
        assert fresh.failures == [] and kept.failures == []


@pytest.fixture
def systemd(tmp_path: Path) -> socket.socket:
    """The other end of NOTIFY_SOCKET."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.settimeout(30)
    return sock


def test_systemd_is_told_of_each_change(systemd: socket.socket) -> None:
    def told(word: str) -> str:
        while True:
            message = systemd.recv(4096).decode()
            if word in message:
                return message

    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "200000"}
    with systemd, Server("--workers", "1", application="environment", environment=environment).ready() as server:
        assert f"MAINPID={server.pid}" in told("READY=1")
        for _ in range(3):
            told("WATCHDOG=1")
        server.kill(signal.SIGHUP)
        assert re.search(r"MONOTONIC_USEC=\d+", told("RELOADING=1"))
        told("READY=1")
        # It is the server's affair, and not the application's.
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(json.loads(server.get()[1]))
        server.kill(signal.SIGTERM)
        told("STOPPING=1")
        assert server.wait() == 0


def test_sockets_that_systemd_passes_are_served_over_reloads_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # LISTEN_PID names the process that is to take them: a shell that becomes the server.
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])"
        )
        prefix = (sys.executable, "-c", script, str(listener.fileno()))
        fds = (listener.fileno(),)
        with Server("--workers", "1", bind=None, prefix=prefix, pass_fds=fds, application="environment") as server:
            server.ready()
            assert server.port == listener.getsockname()[1]
            assert not {"LISTEN_FDS", "LISTEN_PID"} & set(json.loads(server.get()[1]))
            server.kill(signal.SIGHUP)
            server.ready(2)
            server.wait_for("arbiter gen=1 leaves: retired")
            assert server.get()[0] == 200
