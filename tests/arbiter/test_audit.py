from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from django_prefork.arbiter.audit import Audit, connected


class Exporter(threading.Thread):
    def __init__(self, stop: threading.Event) -> None:
        super().__init__(name="exporter")
        self.stop = stop

    def run(self) -> None:
        self.stop.wait()


@contextmanager
def running(*makers: object) -> Iterator[None]:
    stop = threading.Event()
    threads = [maker(stop) for maker in makers]  # type: ignore[operator]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().partition(" was ")[0])


def look(audit: Audit) -> list[str]:
    """What is told of, without the advice."""
    told = Told()
    logger = logging.getLogger("django_prefork")
    logger.addHandler(told)
    try:
        audit.look()
        audit.tell()
    finally:
        logger.removeHandler(told)
    return told.messages


def wait(seconds: float, stop: threading.Event) -> None:
    stop.wait()


def test_a_thread_is_told_once_by_name_code_and_module() -> None:
    audit = Audit()
    audit.look()  # what the tests' own tools have started
    audit.tell()
    here = "tests.arbiter.test_audit"
    with running(
        lambda stop: threading.Thread(target=stop.wait, name="waiter"),
        lambda stop: threading.Thread(target=partial(wait, 1.0, stop), name="partial"),
        Exporter,
    ):
        found = look(audit)
        assert "thread 'waiter' (threading.Event.wait)" in found
        assert f"thread 'partial' ({here}.wait)" in found
        assert f"thread 'exporter' ({here}.Exporter)" in found
        assert not [text for text in look(audit) if "er' (" in text or "partial" in text]


def test_behind_an_executor_stands_whose_work_it_does() -> None:
    audit = Audit()
    audit.look()
    stop = threading.Event()
    begun = threading.Event()

    def work() -> None:
        begun.set()
        stop.wait()

    with ThreadPoolExecutor(1, "pool") as executor:
        executor.submit(work)
        begun.wait()
        try:
            told = [text for text in look(audit) if "pool_0" in text]
            assert told == ["thread 'pool_0' (concurrent.futures.thread._worker, of tests.arbiter.test_audit)"]
        finally:
            stop.set()


def test_connections_are_named_by_their_peer_and_the_servers_own_are_not() -> None:
    before = set(connected())
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.connect(("127.0.0.1", 9))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            port = server.getsockname()[1]
            assert set(connected()) - before == {f"127.0.0.1:{port}"}
            assert set(connected([client.fileno()])) - before == set()


def test_a_unix_socket_is_named_by_its_path(tmp_path: Path) -> None:
    path = str(tmp_path / "db.sock")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
        assert path in connected()


NATIVE = """
import ctypes, threading, time
from django_prefork.arbiter import audit
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
assert audit._native_threads() == [], audit._native_threads()
libc = ctypes.CDLL(None)
thread = ctypes.c_ulong()
assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0
libc.pthread_setname_np(thread, b"rdk:main")
print(audit._native_threads(), flush=True)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="threads that Python does not know are found in /proc, on Linux only"
)
def test_a_librarys_native_thread_is_found_by_its_name() -> None:
    done = subprocess.run([sys.executable, "-c", NATIVE], capture_output=True, text=True, timeout=60)
    assert done.stdout == "['rdk:main']\n", done.stderr


def test_a_look_at_a_socket_leaves_it_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(1.0)  # each socket object that is made now makes its descriptor non-blocking
        try:
            assert any(peer.startswith("127.0.0.1:") for peer in connected())
        finally:
            socket.setdefaulttimeout(before)
        assert os.get_blocking(client.fileno())
