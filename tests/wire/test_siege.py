"""Slow and silent clients hold a connection each, and neither a worker nor its memory; nor for ever."""

from __future__ import annotations

import threading

import pytest

from tests.harness import eventually
from tests.wire import siege
from tests.wire.applications import LARGE
from tests.wire.tools import NotHere, ask, connect, descriptors, private, reset, serve, to_the_end, worker_of


def test_1600_slow_and_silent_clients_cost_a_new_one_nothing() -> None:
    try:
        descriptors(1600)
    except NotHere as missing:
        pytest.skip(str(missing))
    with siege.begin() as server:
        measured = siege.run(server)
    print(*siege.told(measured), sep="\n")
    assert max(measured.waits) < 0.2
    # A connection is 3 KiB; the answers that nobody reads are on disk, but for the last one that was made.
    assert measured.peak - measured.before < 48 * siege.MIB
    assert measured.descriptors[2] <= measured.descriptors[0]
    deaf, *others = measured.parties
    assert {heard[:12] for heard in deaf.heard} == {b"HTTP/1.1 200"}
    assert all(len(heard) < LARGE for heard in deaf.heard)
    assert max(deaf.ends) < deaf.deadline * 1.25 + 1.0
    for party, status in zip(others, (b"HTTP/1.1 408", b"HTTP/1.1 408", b""), strict=True):
        assert {heard[:12] for heard in party.heard} == {status}, party.name
        assert all(heard.count(b"HTTP/1.1") <= 1 for heard in party.heard)
        assert party.deadline - 0.5 < min(party.ends) and max(party.ends) < party.deadline + 1.0, party.name


@pytest.mark.parametrize(
    "path",
    [
        b"/large?4500000",  # the kernel takes 4 MiB of it, and the rest is short enough to stay in memory
        b"/stream?5000000",  # a hundred thousand pieces
    ],
)
def test_what_waits_for_a_client_that_does_not_read_is_bounded(path: bytes) -> None:
    with serve() as server:
        worker = worker_of(server)
        ask(server)
        before = private(worker)
        socks = [connect(server, b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path, 1 << 18) for _ in range(5)]
        ask(server)
        each = (private(worker) - before) / len(socks)
        for sock in socks:
            reset(sock)
        assert each < 1.5 * siege.MIB, f"{each / 1024:.0f} KiB each"


def test_who_reads_slowly_and_steadily_gets_all_of_it() -> None:
    """The kernel, which holds MiB for a client, asks for more only when a third of that is gone."""
    with serve("--send-timeout", "500ms") as server:
        with connect(server, b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 1 << 18) as sock:
            size, pause = 0, threading.Event()
            while more := sock.recv(30_000):
                size += len(more)
                if size < 3_000_000:
                    pause.wait(0.02)  # prefork: ok (a slow client is one that waits)
        assert size > LARGE
        ask(server)


def test_a_full_spool_limit_costs_the_slow_client_and_nobody_else() -> None:
    errors = "spool_limit of .* reached|cannot keep a response for a slow client: spool_limit reached"
    size = 14_000_000  # the kernel takes 4.5 MB of it at most: there is room for one of them, and not for two
    large = b"GET /large?%d HTTP/1.1\r\nHost: h\r\n\r\n" % size
    with serve("--spool-limit", "16m", errors=errors) as server:
        with connect(server, large, 1 << 18):
            ask(server)
            with connect(server, large, 1 << 18) as second:
                # Not before: who reads meanwhile may need no room at all.
                server.wait_for("cannot keep a response for a slow client")
                assert len(to_the_end(second)) < size
        # What the first one held it has given back when it is gone.
        worker = worker_of(server)
        eventually(lambda: all(not c.raddr for c in worker.net_connections() if c.status != "LISTEN"), "it is gone")
        with connect(server, large.replace(b"h\r\n\r\n", b"h\r\nConnection: close\r\n\r\n")) as third:
            assert len(to_the_end(third)) > size
        ask(server)


def test_a_client_that_says_nothing_else_gets_no_answer() -> None:
    with serve("--keep-alive", "300ms") as server:
        with connect(server) as silent, connect(server, b"\r\n") as blank:
            assert to_the_end(silent) == to_the_end(blank) == b""
        with connect(server, b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n") as answered:
            assert to_the_end(answered).endswith(b"\r\n\r\nhello\n")


def test_a_trickle_is_no_progress() -> None:
    """A byte now and then keeps neither a head nor a body alive."""
    with serve("--header-timeout", "500ms", "--body-timeout", "500ms") as server:
        head = b"GET /hello HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"x" * 10_000
        body = b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 10000\r\n\r\n"
        for first, rest in ((b"", head[:8000]), (body, b"x" * 10_000)):
            with connect(server, first) as sock:
                sock.settimeout(0.05)
                answer = b""
                for index in range(len(rest)):
                    try:
                        sock.sendall(rest[index : index + 1])
                        answer = sock.recv(1000)
                        break
                    except TimeoutError:
                        continue
                    except OSError:
                        break
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert index < 60
