from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from django_prefork.arbiter import fork_safety, rehearsal
from django_prefork.worker import prefault

pytestmark = pytest.mark.skipif(not prefault.available(), reason="this system copies no pages ahead")


class Board:
    stopping = False


class Place:
    """Of an Arbiter that nobody says anything to."""

    def __init__(self) -> None:
        self.board = Board()
        self.life, self.life_write = os.pipe()
        self.control, self.control_write = os.pipe()

    def leave(self) -> None: ...

    def close(self) -> None:
        for fd in (self.life, self.control, self.life_write, self.control_write):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def place() -> Iterator[Any]:
    place = Place()
    before = set(psutil.Process().children())
    yield place
    place.close()
    assert set(psutil.Process().children()) <= before, "a child is left"


def hang() -> None:
    time.sleep(3600)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_it_finds_the_pages_that_were_written_to_and_no_others(place: Any) -> None:
    memory = mmap.mmap(-1, 100 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory[:] = b"x" * len(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def write() -> None:
        for page in (10, 11, 12, 20):
            memory[page * mmap.PAGESIZE] = 1
        for page in range(30, 40):
            assert memory[page * mmap.PAGESIZE] == ord("x")

    ranges = rehearsal.rehearse(write, place, "rehearsal")
    pages = {
        (address - start) // mmap.PAGESIZE
        for begin, length in zip(ranges[::2], ranges[1::2], strict=True)
        for address in range(begin, begin + length, mmap.PAGESIZE)
    }
    assert pages & set(range(100)) == {10, 11, 12, 20}


@pytest.mark.parametrize("what", ["os.pidfd_open", "fork"])
def test_a_system_that_refuses_starts_without(
    place: Any, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(*((os, "pidfd_open") if what == "os.pidfd_open" else (fork_safety, "fork")), refuse)
    assert not rehearsal.rehearse(hang, place, "rehearsal")
    (said,) = warnings(caplog)
    assert said.startswith("the rehearsal of warmup is not possible (Operation not permitted): ")


def test_an_older_kernel_starts_without_and_asks_for_nothing(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prefault, "available", lambda: False)
    assert not rehearsal.rehearse(hang, place, "rehearsal")
    assert not warnings(caplog)


def test_a_generation_that_is_to_leave_waits_for_nothing(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    os.close(place.life_write)
    place.life_write = -1
    assert not rehearsal.rehearse(hang, place, "rehearsal")
    assert not warnings(caplog)


def test_what_can_wait_ends_nothing(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.write(place.control_write, b"more\n")
    assert rehearsal.rehearse(lambda: None, place, "rehearsal")
    monkeypatch.setattr(rehearsal, "PATIENCE", 0.2)
    assert not rehearsal.rehearse(hang, place, "rehearsal")
    assert os.read(place.control, 10) == b"more\n"
    (said,) = warnings(caplog)
    assert said.startswith("the rehearsal of warmup took longer than 0.2 s: ")
