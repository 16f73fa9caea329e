"""A late request: first an exception in the view, then the end."""

from __future__ import annotations

import http.client
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.harness import PATIENCE, Clients, Server, eventually, send

DJANGO = {"TEST_APPLICATION": ""}
LATE = "Internal Server Error|SIGKILL|killed|serving|the application failed"


def serve(*arguments: str, workers: int = 1, errors: str = LATE) -> Server:
    server = Server("--workers", str(workers), *arguments, environment=DJANGO, errors=errors).ready()
    server.full_strength(workers)
    return server


def test_a_late_view_gets_an_exception_that_django_answers_and_logs() -> None:
    with serve("--timeout", "0.5") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        began = time.monotonic()
        connection.request("GET", "/slow/?s=60")
        answer = connection.getresponse()
        answer.read()
        took = time.monotonic() - began
        assert answer.status == 500 and 0.5 <= took < 1.0, took
        # The log names the request, and the line of the view.
        server.wait_for(r'serving "GET /slow/\?s=60 HTTP/1.1" for 0.\d s, timeout is 0.5 s .*: RequestTimeout')
        server.wait_for(r'File ".*tests/site/urls.py", line \d+, in slow')
        server.wait_for("RequestTimeout: the request took longer than its timeout of 0.5 s")
        # The connection is still open, and the worker is replaced, the successor first.
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"hello")
        connection.close()
        server.wait_for("asks for a successor: a request took longer than its timeout")
        server.wait_for("retires: expired")


def test_nobody_else_notices_a_late_view() -> None:
    with serve("--timeout", "0.5", workers=2) as server, Clients(server, 2, "/", keep_alive=True) as kept:
        for _ in range(3):
            assert server.get("/slow/?s=60")[0] == 500
        kept.some_more()
    assert kept.failures == [] and kept.connections == 2
    assert {status for status, _ in kept.answers} == {200}


def test_code_that_catches_the_exception_gets_it_again() -> None:
    with serve("--timeout", "0.3") as server:
        assert server.get("/stubborn/?give_up=2")[0] == 500
        server.wait_for("caught 2")
        assert server.count("SIGKILL") == 0


@pytest.mark.parametrize(
    ("path", "view", "stopped"),
    [
        ("/spin/", "spin", False),
        ("/catastrophe/", "catastrophe", False),
        ("/stubborn/", "stubborn", False),
        ("/slow/?s=600", "slow", True),
    ],
)
def test_a_request_that_is_not_to_be_ended_is_told_with_all_that_is_known_of_it(
    path: str, view: str, stopped: bool
) -> None:
    """A loop in Python, one in C that keeps the GIL, one that catches everything, and a stopped process."""
    environment = {**DJANGO, "TEST_APP": "tests.site.hooked_app"}
    # The exception ends loops in Python, and in `re`, which looks at signals now and then.
    grace = "1.5" if path == "/stubborn/" else "0"
    arguments = ("--workers", "1", "--timeout", "0.4", "--timeout-grace", grace)
    with Server(*arguments, environment=environment, errors=LATE).ready() as server, server.connect() as sock:
        (pid,) = server.full_strength(1)
        send(sock, path, "X-Request-ID: abc-1")
        if stopped:
            eventually(lambda: psutil.Process(pid).status() == "sleeping", "it sleeps")
            server.kill(signal.SIGSTOP, pid)
        what = rf'serving "GET {re.escape(path)} HTTP/1.1" for \d\.\d s, timeout is 0.4 s'
        known = rf'view tests.site.urls.{view}, client 127.0.0.1, request id "abc-1"'
        server.wait_for(rf"worker=0 gen=1 pid={pid} killed: {what} \({known}\)")
        server.wait_for(rf'File ".*tests/site/urls.py", line \d+ in {view}')
        assert sock.recv(1) == b""  # closed, and no wrong answer
        server.wait_for(
            rf"hook request_timed_out \d+ pid={pid} request=GET {re.escape(path)} HTTP/1.1 view=tests.site.urls.{view}"
            r" client=127.0.0.1 request_id=abc-1"
        )
        server.wait_for(r"worker=\d+ gen=1 pid=\d+ ready", times=2)
        assert server.get()[0] == 200


def test_a_view_may_have_a_limit_of_its_own() -> None:
    with serve("--timeout", "1") as server:
        began = time.monotonic()
        assert server.get("/short/?s=60")[0] == 500
        assert time.monotonic() - began < 1.0
        server.wait_for("longer than its timeout of 0.3 s")
        assert server.get("/endless/?s=2")[0] == 200
        assert server.get("/patient/?more=60&s=2")[0] == 200
        # It was for those requests alone.
        assert server.get("/slow/?s=60")[0] == 500


def test_each_piece_of_a_stream_has_the_whole_time() -> None:
    with serve("--timeout", "1") as server:
        assert server.get("/stream/?s=0.5&last=0.5") == (200, b"".join(b"piece %d\n" % n for n in range(4)))
        with pytest.raises(http.client.IncompleteRead):
            server.get("/stream/?s=0.1&last=60")
        # Before the first piece there is still an answer to give.
        assert server.get("/stream/?s=60")[0] == 500


def test_only_the_late_request_is_told() -> None:
    """Requests that take just about as long as they may, so that many a signal comes when they have ended."""
    with serve("--timeout", "0.05", "--timeout-grace", "5", workers=2) as server:

        def ask(first: int) -> set[int]:
            takes = (0.045 + ((first + number) % 10) / 1000 for number in range(60))
            return {server.get(f"/slow/?s={seconds}")[0] for seconds in takes}

        with ThreadPoolExecutor(3) as pool:
            statuses = set().union(*pool.map(ask, range(3)))
        # Each is answered, by the view or by Django's error page, and nothing else happens.
        assert statuses == {200, 500}
        eventually(lambda: server.get()[0] == 200, "it serves on")
        assert server.count("a mistake of the server") == 0 and server.count("SIGKILL") == 0
