"""Too many clients, errors that the kernel answers with, a disk that is full, and who is gone at any moment."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Server, eventually, read_answer
from tests.wire.applications import LARGE
from tests.wire.tools import HELLO, ask, connect, needs_tool, reset, serve, take, to_the_end, worker_of

POST = b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n" + b"x" * 20
CHUNKED = b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"


def settled(server: Server, count: int) -> None:
    """The worker has given back what clients took: `count` descriptors are left."""
    worker = worker_of(server)
    ask(server)  # it has accepted all who came before
    eventually(lambda: worker.num_fds() <= count, f"{count} descriptors")
    ask(server)


@contextlib.contextmanager
def all_given_back(server: Server) -> Iterator[None]:
    """What clients take of the worker's descriptors within the block is free again behind it."""
    before = worker_of(server).num_fds()
    yield
    settled(server, before)


# -- descriptors -------------------------------------------------------------------------------------------------------


def limited(*arguments: str) -> Server:
    # The hard limit as well: the server raises the soft one to it.
    return serve(*arguments, prefix=("prlimit", "--nofile=100:100"), errors="cannot accept")


@needs_tool("prlimit")
def test_out_of_descriptors_idle_clients_make_room() -> None:
    with limited() as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server, HELLO)) for _ in range(150)]
        for sock in socks:
            # All are served, those that came too late for a descriptor, too.
            assert read_answer(sock)[2] == b"hello\n"
        began = time.monotonic()
        for _ in range(5):
            ask(server)
        # A line a second at most: the run so far took a few.
        assert 1 <= server.count("cannot accept: Too many open files") <= 2 + time.monotonic() - began + 5
        assert worker_of(server).num_fds() <= 100


@needs_tool("prlimit")
def test_out_of_descriptors_and_nobody_is_idle_deadlines_make_room() -> None:
    with limited("--header-timeout", "1") as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server, b"GET /half HTTP/1.1\r\nHost: h\r\n")) for _ in range(150)]
        server.wait_for("cannot accept")
        for sock in socks:
            assert to_the_end(sock).startswith(b"HTTP/1.1 408 ")
            sock.close()  # or it would be waited for, lest the answer be lost
        ask(server)
        settled(server, 60)


@needs_tool("prlimit")
def test_out_of_descriptors_a_body_is_refused_that_needs_a_file() -> None:
    with limited("--body-timeout", "2", "--send-timeout", "2") as server, contextlib.ExitStack() as stack:
        body = b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 600000\r\n\r\n"
        first = stack.enter_context(connect(server, body))
        for _ in range(150):
            stack.enter_context(connect(server, b"GET /half HTTP/1.1\r\nHost: h\r\n"))
        server.wait_for("cannot accept")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            first.sendall(b"x" * 600_000)
        assert to_the_end(first).startswith(b"HTTP/1.1 507 ")


# -- accept ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def injected(pid: int, errors: str, tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Every second call of accept() fails; counts how many did."""
    report = tmp_path / "strace"
    command = ["strace", "-p", str(pid), "-o", str(report), "-e", "trace=accept4", "-e"]
    strace = subprocess.Popen([*command, f"inject=accept4:error={errors}:when=1+2"], stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    try:
        line = strace.stderr.readline()
        if "attached" not in line:
            pytest.skip(f"strace may not look at other processes here: {line.strip()}")
        yield lambda: report.read_text().count("INJECTED")
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(PATIENCE)
        strace.stderr.close()


@needs_tool("strace")
@pytest.mark.parametrize(
    ("error", "pauses"),
    [("ECONNABORTED", False), ("EPROTO", False), ("EPERM", False), ("EMFILE", True), ("ENOBUFS", True)],
)
def test_an_error_of_accept_costs_nobody_anything(error: str, pauses: bool, tmp_path: Path) -> None:
    with serve(errors="cannot accept") as server:
        with injected(worker_of(server).pid, error, tmp_path) as count:
            for _ in range(4):
                ask(server)
            eventually(lambda: count() >= 3, "some calls failed")
        assert bool(server.count("cannot accept")) is pauses
        assert server.count("cannot accept") <= 4
        ask(server)


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"no disk of 64 KiB can be made here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_507_and_the_worker_lives(small_disk: Path) -> None:
    with serve("--spool-dir", str(small_disk)) as server:
        before = worker_of(server).num_fds()
        for length in (b"Content-Length: 2000000", b"Transfer-Encoding: chunked"):
            for _ in range(3):
                body = b"x" * 2_000_000 if b"Length" in length else b"1e8480\r\n" + b"x" * 2_000_000 + b"\r\n0\r\n\r\n"
                with connect(server, b"POST /count HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % length) as sock:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        sock.sendall(body)
                    answer = to_the_end(sock)
                assert answer.startswith(b"HTTP/1.1 507 ") and b"\r\nConnection: close\r\n" in answer
        # What fits into memory needs no disk.
        with connect(server, b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n") as sock:
            sock.sendall(b"x" * 500_000)
            assert read_answer(sock)[2] == b"500000"
        settled(server, before)
        assert not list(small_disk.iterdir())


def test_a_full_disk_costs_a_slow_reader_its_answer_and_nobody_else(small_disk: Path) -> None:
    with (
        serve("--spool-dir", str(small_disk), errors="cannot keep a response for a slow client") as server,
        all_given_back(server),
        connect(server, b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n", 1 << 18) as sock,
    ):
        # Not read before: a quick reader is served without any disk.
        server.wait_for("cannot keep a response for a slow client: No space left on device")
        assert 0 < len(to_the_end(sock)) < LARGE


# -- gone --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [HELLO, POST, CHUNKED], ids=["get", "length", "chunked"])
def test_a_reset_at_every_byte_of_a_request(raw: bytes) -> None:
    with serve() as server, all_given_back(server):
        for end in range(len(raw) + 1):
            reset(connect(server, raw[:end]))
            # And with one request that was answered before it, on the same connection.
            sock = connect(server, HELLO)
            read_answer(sock)
            sock.sendall(raw[:end])
            reset(sock)


@pytest.mark.parametrize("path", [b"/hello", b"/stream?500"])
def test_a_reset_at_every_byte_of_an_answer(path: bytes) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path
    with serve() as server:
        with connect(server, request.replace(b"h\r\n\r\n", b"h\r\nConnection: close\r\n\r\n")) as sock:
            size = len(to_the_end(sock)) - len(b"Connection: close\r\n")
        before = worker_of(server).num_fds()
        for end in range(size + 1):
            sock = connect(server, request * 2)
            take(sock, end)
            reset(sock)
        settled(server, before)


def test_a_reset_in_the_middle_of_a_large_answer() -> None:
    with serve() as server, all_given_back(server):
        for path in (b"/large", b"/stream?3000000"):
            for end in (0, 1, 100, 1000, 100_000, 1_000_000):
                sock = connect(server, b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path, 1 << 18)
                take(sock, end)
                reset(sock)


@pytest.mark.parametrize("raw", [HELLO, POST, CHUNKED], ids=["get", "length", "chunked"])
def test_a_half_close_at_every_byte_of_a_request(raw: bytes) -> None:
    """The client has said all that it will, and listens: half a request is none, and a whole one is answered."""
    with serve() as server, all_given_back(server):
        for end in range(len(raw) + 1):
            for first in (b"", HELLO):
                with connect(server, first + raw[:end]) as sock:
                    sock.shutdown(socket.SHUT_WR)
                    statuses = re.findall(rb"HTTP/1\.1 (\d+)", to_the_end(sock))
                expected = [b"200"] * bool(first) + ([b"200"] if end == len(raw) else [b"400"] * bool(end))
                assert statuses == expected, raw[:end]


def test_a_half_close_before_a_large_answer_is_taken() -> None:
    with serve() as server, connect(server, b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n", 1 << 18) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert len(to_the_end(sock)) > LARGE


def test_the_client_goes_while_the_application_works() -> None:
    with serve(application="tests.site.applications.work") as server:
        before = worker_of(server).num_fds()
        for go in (reset, socket.socket.close):
            sock = connect(server, b"GET /sleep?s=0.2 HTTP/1.1\r\nHost: h\r\n\r\n")
            server.wait_for("sleeping", times=1 + (go is not reset))
            go(sock)
        eventually(lambda: worker_of(server).num_fds() <= before, "both are gone")
        assert server.get("/pid")[0] == 200


def test_all_of_a_crowd_leaves_at_once() -> None:
    with serve() as server, all_given_back(server):
        socks = [connect(server, HELLO) for _ in range(400)]
        with selectors.DefaultSelector() as selector:
            selector.register(socks[-1], selectors.EVENT_READ)
            assert selector.select(PATIENCE)
        os.kill(worker_of(server).pid, signal.SIGSTOP)
        for number, sock in enumerate(socks):
            (reset if number % 2 else socket.socket.close)(sock)
        os.kill(worker_of(server).pid, signal.SIGCONT)
