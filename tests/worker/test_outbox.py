from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prefork.http.storage import MEMORY, Storage
from django_prefork.worker.outbox import Outbox


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        yield a, b


def drain(outbox: Outbox, pair: tuple[socket.socket, socket.socket]) -> bytes:
    """All of it, as the other end receives it."""
    received = bytearray()
    while outbox:
        outbox.flush(pair[0])
        received += pair[1].recv(1 << 20)
    pair[1].setblocking(False)
    while True:
        try:
            received += pair[1].recv(1 << 20)
        except BlockingIOError:
            return bytes(received)


def test_memory_disk_and_files_go_out_in_their_order(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(700_000))
    outbox = Outbox(Storage())
    parts = [os.urandom(1000), os.urandom(MEMORY), os.urandom(300_000), os.urandom(10)]
    for part in parts:
        outbox.add(part)
    outbox.add_file(os.open(file, os.O_RDONLY), 100, 600_000)
    outbox.add(b"the end")
    assert outbox.held == sum(map(len, parts)) + 7
    assert drain(outbox, pair) == b"".join(parts) + file.read_bytes()[100:600_100] + b"the end"
    assert outbox.held == 0 and not outbox
    outbox.close()


def test_what_waits_beyond_half_a_mebibyte_waits_on_disk(pair: tuple[socket.socket, socket.socket]) -> None:
    outbox = Outbox(Storage())
    for _ in range(100):
        outbox.add(b"x" * 100_000)
    assert outbox._memory <= MEMORY
    outbox.close()


def test_all_answers_of_a_worker_share_its_memory(pair: tuple[socket.socket, socket.socket]) -> None:
    storage = Storage()
    storage.left = 1000
    first, second = Outbox(storage), Outbox(storage)
    first.add(b"a" * 700)
    second.add(b"b" * 700)
    assert storage.left == 300 and second._on_disk == 700
    assert drain(first, pair) == b"a" * 700
    assert storage.left == 1000
    first.add(b"a" * 700)
    first.close()
    first.close()
    second.close()
    assert storage.left == 1000


def test_closing_gives_every_descriptor_back(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    outbox = Outbox(Storage())
    outbox.add(b"x" * (MEMORY + 1))
    with tempfile.TemporaryFile() as file:
        outbox.add_file(os.dup(file.fileno()), 0, 10)
    outbox.close()
    outbox.close()
    assert len(os.listdir("/dev/fd")) == before


def test_a_file_that_became_shorter_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    outbox = Outbox(Storage())
    with tempfile.TemporaryFile() as file:
        file.write(b"short")
        file.flush()
        outbox.add_file(os.dup(file.fileno()), 0, 100)
    with pytest.raises(OSError, match="shorter"):
        outbox.flush(pair[0])
        outbox.flush(pair[0])
    outbox.close()
