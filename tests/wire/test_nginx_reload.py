"""Twenty reloads under load behind an nginx that keeps its connections: nobody gets a 502, or anything but an answer."""

from __future__ import annotations

import signal

from tests.harness import Clients
from tests.wire.proxies import Nginx
from tests.wire.tools import needs_tool, serve

RELOADS = 20


@needs_tool("nginx")
def test_twenty_reloads_behind_nginx_are_not_one_bad_gateway() -> None:
    with serve(workers=2) as server, Nginx(f"127.0.0.1:{server.port}") as nginx:
        with (
            Clients(nginx, 24, "/hello", keep_alive=True) as kept,  # type: ignore[arg-type]
            Clients(nginx, 8, "/stream?2000") as fresh,  # type: ignore[arg-type]
        ):
            for generation in range(2, RELOADS + 2):
                server.kill(signal.SIGHUP)
                server.ready(generation)
                kept.some_more()
        server.wait_for("gen=20 leaves: retired")
        for clients in (kept, fresh):
            assert not clients.failures
            assert {status for status, _ in clients.answers} == {200}
        assert {len(body) for _, body in fresh.answers} == {2000}
        assert kept.connections == 24
        nginx.stop()
        statuses = nginx.statuses()[1:]  # but for the one that asked whether it listens
        print(f"{len(statuses)} requests, {RELOADS} reloads, statuses {set(statuses)}")
        assert set(statuses) == {200}
