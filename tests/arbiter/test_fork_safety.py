from __future__ import annotations

import gc
import os
import random
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from django.core.cache import caches
from django.db import ConnectionHandler
from django.db.backends.base.base import BaseDatabaseWrapper

from django_prefork import process
from django_prefork.arbiter import fork_safety


def in_child(what: Callable[[], object]) -> str:
    """What it answers in a child that `fork_safety` makes, as text."""
    read, write = os.pipe()
    pid = fork_safety.fork()
    if pid == 0:
        try:
            os.write(write, str(what()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


class Driver:
    """A connection that says goodbye when it is closed, and when it is collected."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.send(b"bye")

    __del__ = close


class Wrapper(BaseDatabaseWrapper):
    vendor = "test"

    def __init__(self, sock: socket.socket) -> None:
        self.alias = "test"
        self.connection = Driver(sock)  # type: ignore[assignment]

    def __del__(self) -> None:
        self.connection = None


@pytest.fixture
def pair() -> Any:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_a_connection_of_another_thread_is_dropped_in_the_child_without_a_word(pair: Any) -> None:
    ours, theirs = pair
    storage = threading.local()
    made, done = threading.Event(), threading.Event()
    known: list[Any] = []

    def run() -> None:
        storage.wrapper = Wrapper(ours)
        known.append(weakref.ref(storage.wrapper))
        fork_safety._made(storage.wrapper)
        made.set()
        done.wait()

    thread = threading.Thread(target=run)
    thread.start()
    made.wait()

    def look() -> object:
        wrapper = known[0]()
        gc.collect()
        os.write(ours.fileno(), b"whatever the driver may still say")
        return wrapper.connection, hasattr(storage, "wrapper")

    try:
        assert in_child(look) == "(None, False)"
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        assert known[0]().connection is not None, "the parent's own is as it was"
    finally:
        done.set()
        thread.join()


def test_connections_that_were_there_before_are_known(pair: Any) -> None:
    wrapper = Wrapper(pair[0])
    fork_safety.watch()
    assert wrapper in [survivor for survivor, _ in fork_safety._survivors()]
    wrapper.connection = None
    assert wrapper not in [survivor for survivor, _ in fork_safety._survivors()]


@pytest.mark.django_db
def test_a_database_in_memory_is_copied_and_not_dropped() -> None:
    memory = ConnectionHandler({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})["default"]
    memory.ensure_connection()
    try:
        fork_safety.watch()
        assert memory.connection is not None
        assert memory not in [survivor for survivor, _ in fork_safety._survivors()]
    finally:
        memory.connection.close()
        memory.connection = None


def test_all_pools_are_closed_and_none_is_made_for_it(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    closed = []

    class Pooled:
        _connection_pools: ClassVar[dict[Any, str]] = {"one": "pool", ("two", "scott"): "pool"}

        def __init__(self, alias: str, user: str = "") -> None:
            self.alias = alias
            self.settings_dict = {"USER": user}

        def close_pool(self) -> None:
            closed.append(self.alias)
            if self.alias == "one":
                raise RuntimeError("as asked")

    class Handler:
        settings: ClassVar[dict[str, Any]] = {"one": {"ENGINE": "tests"}}

        def __iter__(self) -> Any:
            return iter(["one", "two", "three"])

        def __getitem__(self, alias: str) -> Pooled:
            return Pooled(alias, "scott" if alias == "two" else "")

        def all(self, initialized_only: bool) -> list[Any]:
            return []

    monkeypatch.setattr("django.db.connections", Handler())
    monkeypatch.setattr(process, "pools", lambda: [Pooled._connection_pools])
    process.close_databases(pools=True)
    assert closed == ["one", "two"]


def test_caches_clients_are_closed_and_dropped() -> None:
    before = caches["default"]
    before.set("a", 1)
    fork_safety.clean()
    assert caches["default"] is not before
    assert caches["default"].get("a") == 1


def test_children_draw_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []

    class Numpy:
        @staticmethod
        def seed() -> None:
            seeded.append(1)

    monkeypatch.setitem(fork_safety.sys.modules, "numpy.random", Numpy)  # type: ignore[attr-defined]
    state = random.getstate()
    drawn = {in_child(lambda: (random.random(), seeded)) for _ in range(3)}
    assert len(drawn) == 3 and all("[1]" in text for text in drawn)
    assert random.getstate() == state and not seeded
