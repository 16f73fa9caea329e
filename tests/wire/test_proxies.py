"""nginx and HAProxy in front: they forward what they like, and not one request more comes out of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Clients, Server
from tests.http.judge import Case, corpus
from tests.wire.proxies import NUMBERED, Haproxy, Nginx, Proxy
from tests.wire.tools import needs_tool, serve, to_the_end

nginx = pytest.param(Nginx, "", marks=needs_tool("nginx"), id="nginx")
nginx_unbuffered = pytest.param(
    Nginx, "proxy_request_buffering off; proxy_buffering off;", marks=needs_tool("nginx"), id="nginx-unbuffered"
)
haproxy = pytest.param(Haproxy, "", marks=needs_tool("haproxy"), id="haproxy")
haproxy_lenient = pytest.param(
    Haproxy, "option accept-invalid-http-request", marks=needs_tool("haproxy"), id="haproxy-lenient"
)


def converse(port: int, case: Case) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(case.raw)
            if case.then == "shutdown_wr":
                sock.shutdown(socket.SHUT_WR)
            elif case.then == "close":
                return
            elif case.then == "send":
                sock.recv(65536)
                sock.sendall(case.then_data)
        to_the_end(sock)


class Probes:
    """A client whose requests, among the hostile ones, get answers of their own and nobody else's."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/probe-"
        self.count = 0

    def ask(self) -> None:
        self.count += 1
        with urllib.request.urlopen(f"{self.url}{self.count}", timeout=PATIENCE) as answer:
            assert json.load(answer)["path"] == f"/probe-{self.count}"


@pytest.mark.parametrize(("kind", "options"), [nginx, nginx_unbuffered, haproxy, haproxy_lenient])
def test_hostile_requests_through_a_proxy_are_never_one_more_than_it_forwarded(kind: type[Proxy], options: str) -> None:
    server = Server("--workers", "2", "--access-log", "-", "--access-log-format", NUMBERED, application="echo")
    with server.ready(), kind(f"127.0.0.1:{server.port}", options, patience="1s") as proxy:
        probes = Probes(proxy.port)
        with concurrent.futures.ThreadPoolExecutor(70) as pool:
            hostile = [pool.submit(converse, proxy.port, case) for case in corpus()]
            for _ in range(50):
                probes.ask()
            for each in hostile:
                each.result(PATIENCE)
        probes.ask()
        proxy.stop()
        forwarded, proxied = proxy.forwarded(), proxy.log()
        assert server.stop() == 0
        served = [line.split(" ", 4)[1:] for line in server.lines if line.startswith("access ")]
    numbers = Counter(number for number, _, method, _ in served if method != "-")
    assert sum(numbers.values()) >= probes.count + 20, "hardly anything was forwarded"
    unknown = [entry for entry in served if entry[2] != "-" and entry[0] not in forwarded]
    assert not unknown, (unknown, proxied)
    assert set(numbers.values()) == {1}, numbers.most_common(3)
    # What was refused has no number; there is no more of it than of what was forwarded and not served.
    assert len(served) <= len(forwarded), (len(served), len(forwarded))


@pytest.mark.parametrize(("kind", "options"), [nginx, haproxy])
def test_a_proxy_keeps_its_connections_and_says_who_the_client_is(
    kind: type[Proxy], options: str, tmp_path: Path
) -> None:
    """Over a unix socket, whose peers are believed."""
    path = tmp_path / "server.sock"
    server = Server("--workers", "2", "--access-log", "-", bind=f"unix:{path}", application="echo")
    with server.ready(), kind(f"unix:{path}", options) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/a%20b?c=d"
        request = urllib.request.Request(url, data=b"x" * 700_000, headers={"X-Forwarded-For": "6.6.6.6"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            said = json.load(answer)
        assert (said["method"], said["path"], said["query"]) == ("POST", "/a b", "c=d")
        assert said["body"] == "x" * 700_000
        assert said["env"]["REMOTE_ADDR"] == "127.0.0.1"
        server.wait_for(r'^127\.0\.0\.1 - - .*"POST /a%20b\?c=d HTTP/1\.1" 200')


@pytest.mark.parametrize(("kind", "options"), [nginx, haproxy])
def test_a_crowd_through_a_proxy_is_answered(kind: type[Proxy], options: str) -> None:
    with serve(workers=2) as server, kind(f"127.0.0.1:{server.port}", options) as proxy:
        with Clients(proxy, 16, "/stream?20000", keep_alive=True) as clients:  # type: ignore[arg-type]
            clients.some_more(300)
        assert not clients.failures
        assert {(status, len(body)) for status, body in clients.answers} == {(200, 20_000)}
        proxy.stop()
        assert set(proxy.statuses()[1:]) == {200}  # but for the one that asked whether it listens
