from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator

import pytest

from django_prefork.scoreboard import Scoreboard, State, anonymous_file


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard.create(8)
    yield board
    os.close(board.fd)


def test_a_row_tells_what_its_worker_does(board: Scoreboard) -> None:
    slot = board.claim(3, boot_deadline=9.0)
    board.occupy(slot, 77)
    assert board.read(slot).state is State.BOOTING and board.boot_deadline(slot) == 9.0
    row = board.row(slot)
    row.begin(b"GET /a HTTP/1.1", 12.5)
    reading = board.read(slot)
    assert (reading.pid, reading.generation, reading.state) == (77, 3, State.BUSY)
    assert (reading.request, reading.since, reading.requests) == ("GET /a HTTP/1.1", 12.5, 0)
    row.progress(13.0)
    assert board.read(slot).since == 13.0
    row.end(14.0)
    assert (board.read(slot).state, board.read(slot).requests, board.read(slot).since) == (State.IDLE, 1, 14.0)


def test_a_long_request_line_is_cut_and_harms_no_neighbour(board: Scoreboard) -> None:
    first, second = board.claim(1, 0.0), board.claim(1, 0.0)
    board.occupy(first, 1)
    board.occupy(second, 2)
    before = board.read(second)
    board.row(first).begin(b"x" * 100_000, 1.0)
    assert board.read(second) == before
    assert set(board.read(first).request) == {"x"}


def test_two_workers_never_share_a_slot(board: Scoreboard) -> None:
    slots = [board.claim(1, 0.0) for _ in range(8)]
    assert sorted(slots) == list(range(8))
    with pytest.raises(RuntimeError):
        board.claim(1, 0.0)
    board.free(5)
    assert board.claim(2, 0.0) == 5


def test_what_a_killed_arbiter_had_claimed_is_freed(board: Scoreboard) -> None:
    lost, kept = board.claim(1, 0.0), board.claim(1, 0.0)
    board.occupy(kept, 77)
    board.bury(1)
    assert board.claim(2, 0.0) == lost
    assert board.read(kept).pid == 77


def test_spooled_bytes_are_counted_over_all_workers_and_forgotten_with_them(board: Scoreboard) -> None:
    first, second = board.claim(1, 0.0), board.claim(1, 0.0)
    board.row(first).spool(100)
    board.row(second).spool(50)
    board.row(first).spool(-30)
    assert board.spooled() == 120
    board.free(first)
    assert board.spooled() == 50


def test_the_header_says_whether_to_stop_or_to_retire(board: Scoreboard) -> None:
    assert (board.stopping, board.retired) == (False, 0)
    board.retire(2)
    board.retire(1)
    board.stop()
    assert (board.stopping, board.retired) == (True, 2)


def test_another_process_sees_the_same(board: Scoreboard) -> None:
    slot = board.claim(1, 0.0)

    def write() -> None:
        Scoreboard(board.fd).row(slot).begin(b"GET /from-the-child HTTP/1.1", 1.0)

    child = multiprocessing.get_context("fork").Process(target=write)
    child.start()
    child.join()
    assert board.read(slot).request == "GET /from-the-child HTTP/1.1"


def test_what_is_no_scoreboard_is_refused() -> None:
    fd = anonymous_file("other")
    os.ftruncate(fd, 8192)
    with pytest.raises(ValueError, match="not a scoreboard"):
        Scoreboard(fd)
    os.close(fd)
