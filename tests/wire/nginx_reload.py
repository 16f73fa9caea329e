"""Reloads under load behind an nginx that keeps 32 connections: nobody gets a 502, or anything but an answer.

`python -m tests.wire.nginx_reload [--reloads 20]`
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections import Counter

import psutil

from tests.harness import PATIENCE, Clients, Server, eventually, read_answer
from tests.wire.proxies import Nginx
from tests.wire.tools import HELLO, serve

KEPT = 32


def at_once(server: Server, nginx: Nginx, generation: int) -> list[int]:
    """32 requests that nginx has to send through as many connections, since nobody answers until all are sent."""
    socks = []
    workers = server.workers(generation)
    try:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(KEPT):
            socks.append(socket.create_connection(("127.0.0.1", nginx.port), timeout=PATIENCE))
            socks[-1].sendall(HELLO)
        eventually(lambda: upstream_connections(server, nginx) == KEPT, "nginx has its connections")
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    statuses = [read_answer(sock)[0] for sock in socks]
    for sock in socks:
        sock.close()
    return statuses


def upstream_connections(server: Server, nginx: Nginx) -> int:
    processes = psutil.Process(nginx.process.pid).children()
    found = [connection for process in processes for connection in process.net_connections("tcp4")]
    return sum(bool(c.raddr) and c.raddr.port == server.port and c.status == "ESTABLISHED" for c in found)


def run(reloads: int) -> str:
    """What happened, in a sentence. Raises AssertionError."""
    with serve(workers=2) as server, Nginx(f"127.0.0.1:{server.port}") as nginx:
        # nginx keeps these, and uses few of them until there is a crowd again.
        assert at_once(server, nginx, 1) == [200] * KEPT
        with (
            Clients(nginx, 4, "/hello", keep_alive=True) as kept,  # type: ignore[arg-type]
            Clients(nginx, 2, "/stream?2000") as fresh,  # type: ignore[arg-type]
        ):
            for generation in range(2, reloads + 2):
                server.kill(signal.SIGHUP)
                server.ready(generation)
                kept.some_more()
        server.wait_for(f"arbiter gen={reloads} leaves: retired")
        # They went from hand to hand twenty times, most of them without a request.
        assert at_once(server, nginx, reloads + 1) == [200] * KEPT
        for clients in (kept, fresh):
            assert not clients.failures
            assert {status for status, _ in clients.answers} == {200}
        assert {len(body) for _, body in fresh.answers} == {2000}
        assert kept.connections == 4
        nginx.stop()
        statuses = nginx.statuses()[1:]  # but for the one that asked whether it listens
        assert set(statuses) == {200}, Counter(statuses)
        return f"{reloads} reloads, {len(statuses)} requests, all answered with 200"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=20)
    print(run(parser.parse_args().reloads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
