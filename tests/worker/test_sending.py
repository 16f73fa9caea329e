"""An answer that is larger than what the kernel takes at once."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from django_prefork.config import Config
from django_prefork.http.storage import MEMORY, Storage
from django_prefork.worker import sending as module
from django_prefork.worker.outbox import Outbox
from django_prefork.worker.sending import Sending

BODY = os.urandom(8 * MEMORY)
PIECE = 8 * 1024


class Room:
    """A `Room` that notes what was asked of it."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, count: int) -> bool:
        self.asked += max(0, count)
        return True


class Client:
    """Reads to the end, in a thread of its own, from when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.received = bytearray()
        self._sock = sock
        self._thread = threading.Thread(target=self._read)

    def read(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        while data := self._sock.recv(1 << 20):
            self.received += data

    def join(self) -> None:
        self._thread.join()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Client]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        client = Client(b)
        yield a, client


def finish(sending: Sending, sock: socket.socket) -> None:
    """As the loop does when the application is done."""
    while sending:
        sending.flush()
    sending.close()
    sock.shutdown(socket.SHUT_WR)


def pieces() -> list[bytes]:
    return [BODY[start : start + PIECE] for start in range(0, len(BODY), PIECE)]


@pytest.mark.parametrize("parts", [[BODY], pieces()], ids=["whole", "pieces"])
def test_a_quick_client_is_spared_the_way_over_the_disk(
    pair: tuple[socket.socket, Client], parts: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK", 60.0)  # quick enough, on however busy a machine
    monkeypatch.setattr(module, "QUICK_IN_ALL", 60.0)
    sock, client = pair
    room = Room()
    sending = Sending(sock, Config.of(), Storage(None, room), lambda: None)
    client.read()
    for part in parts:
        sending.send(part)
    finish(sending, sock)
    client.join()
    assert bytes(client.received) == BODY
    assert not room.asked


@pytest.mark.parametrize("parts", [[BODY], pieces()], ids=["whole", "pieces"])
def test_a_slow_client_is_waited_for_once_and_gets_all_in_its_order(
    pair: tuple[socket.socket, Client], parts: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK", 0.001)
    waits: list[memoryview] = []
    hurry = Sending._hurry
    monkeypatch.setattr(Sending, "_hurry", lambda self, rest: waits.append(rest) or hurry(self, rest))
    sock, client = pair
    room = Room()
    sending = Sending(sock, Config.of(), Storage(None, room), lambda: None)
    for part in parts:
        sending.send(part)
    assert len(waits) == 1
    assert room.asked >= len(BODY) / 2
    client.read()
    finish(sending, sock)
    client.join()
    assert bytes(client.received) == BODY


def test_a_client_that_is_just_quick_enough_does_not_get_the_workers_time(
    pair: tuple[socket.socket, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a little within each QUICK, for ever."""
    monkeypatch.setattr(module, "QUICK", 60.0)
    monkeypatch.setattr(module, "QUICK_IN_ALL", 0.01)
    sock, client = pair
    room = Room()
    sending = Sending(sock, Config.of(), Storage(None, room), lambda: None)
    other = client._sock
    waits: list[float] = []

    def trickle(_: object) -> None:
        threading.Event().wait(0.02)  # prefork: ok (a client that takes its time)
        waits.append(0.02)
        if select.select([other], [], [], 0)[0]:
            other.recv(1 << 16)

    class Poll:
        register = staticmethod(lambda *_: None)
        poll = staticmethod(lambda timeout: [trickle(timeout)])

    monkeypatch.setattr(module.select, "poll", Poll)
    sending.send(BODY)
    assert len(waits) == 1
    assert room.asked >= len(BODY) / 2
    sending.close()


def test_one_turn_of_the_loop_sends_so_much_and_no_more() -> None:
    """Or one client that reads as fast as the server sends would keep all others waiting to the end of its file."""
    outbox = Outbox(Storage())
    for _ in range(10):
        outbox.add(bytes(1 << 20))
    with open(os.devnull, "wb") as sink:

        class Greedy:
            """A socket that takes whatever it is given."""

            fileno = sink.fileno

            @staticmethod
            def send(data: bytes) -> int:
                return len(data)

        sizes = []
        while outbox:
            sizes.append(outbox.flush(cast(socket.socket, Greedy())))
    assert sum(sizes) == 10 << 20
    assert max(sizes) <= 5 << 20
