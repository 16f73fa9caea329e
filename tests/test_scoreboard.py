from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from django_prefork import counters, ends, layout
from django_prefork.histogram import SIZES, TIMES
from django_prefork.scoreboard import Scoreboard, Stage, State, anonymous_file


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
    row.state(State.IDLE, 11.0)
    assert (board.read(slot).state, board.read(slot).since) == (State.IDLE, 11.0)
    row.begin(b"192.0.2.1\nGET /a HTTP/1.1", 12.5)
    row.view(b"shop.views.Basket")
    reading = board.read(slot)
    assert (reading.pid, reading.generation, reading.state) == (77, 3, State.BUSY)
    assert (reading.request, reading.client, reading.request_id) == ("GET /a HTTP/1.1", "192.0.2.1", "")
    assert (reading.view, reading.since, board.requests(slot)) == ("shop.views.Basket", 12.5, 0)
    row.progress(13.0)
    reading = board.read(slot)
    assert (reading.state, reading.since, reading.began) == (State.STREAMING, 13.0, 12.5)
    row.end(14.0, 1.5, 200, 6)
    reading = board.read(slot)
    assert (reading.state, reading.since, reading.leaving) == (State.IDLE, 14.0, False)
    assert board.requests(slot) == 1


def test_a_leaving_worker_is_told_from_one_that_is_idle_before_and_after_a_request(board: Scoreboard) -> None:
    slot = board.claim(1, 0.0)
    row = board.row(slot)
    row.state(State.DRAINING, 1.0)
    row.begin(b"\nid-7\nGET / HTTP/1.1", 2.0)
    reading = board.read(slot)
    assert (reading.state, reading.leaving, reading.request_id, reading.client) == (State.BUSY, True, "id-7", "")
    row.end(3.0, 1.0, 200, 0)
    assert (board.read(slot).state, board.read(slot).leaving) == (State.DRAINING, True)


def test_the_view_of_the_last_request_is_not_that_of_this_one(board: Scoreboard) -> None:
    row = board.row(board.claim(1, 0.0))
    row.begin(b"\nGET /a HTTP/1.1", 1.0)
    row.view(b"a" * 1000)
    assert board.read(0).view == "a" * 128
    row.end(2.0, 1.0, 200, 0)
    row.begin(b"\nGET /b HTTP/1.1", 3.0)
    assert board.read(0).view == ""


def test_only_who_has_been_idle_for_a_moment_is_an_idle_sibling(board: Scoreboard) -> None:
    rows = [board.row(board.claim(1, 0.0)) for _ in range(4)]
    for row in rows:
        row.state(State.IDLE, 1.0)
    assert len(board.idle_siblings(0, 2.0)) == 3
    rows[1].begin(b"\nGET / HTTP/1.1", 1.5)
    rows[2].begin(b"\nGET / HTTP/1.1", 1.5)
    rows[2].end(1.9999, 0.4, 200, 0)
    rows[3].state(State.DRAINING, 1.0)
    assert board.idle_siblings(0, 2.0) == []
    assert len(board.idle_siblings(0, 2.1)) == 1


def test_counters_go_on_from_one_worker_of_a_slot_to_the_next(board: Scoreboard) -> None:
    slot = board.claim(1, 0.0)
    first = board.row(slot)
    first.received = first.sent = 100
    for status in (200, 204, 304, 404, 500, 503, 0):
        first.begin(b"\nGET / HTTP/1.1", 1.0, 0.003)
        first.end(2.0, 0.02, status, 70)
    first.accepted()
    first.refused()
    first.gave(True)
    first.gave(False)
    board.free(slot)
    assert board.claim(2, 0.0) == slot and board.requests(slot) == 0
    second = board.row(slot)
    second.end(4.0, 200.0, 200, 1 << 40)
    second.took(True)
    assert board.requests(slot) == 1
    total = counters.of_all(board)
    assert total.answers == {"none": 1, "2xx": 3, "3xx": 1, "4xx": 1, "5xx": 2}
    assert (total.requests, total.refused, total.accepted) == (8, 1, 1)
    assert (total.received, total.sent, total.bodies) == (100, 100, 7 * 70 + (1 << 40))
    assert (total.handed_out, total.handed_in, total.handing_over) == (2, 1, 0)
    assert total.application[TIMES.index(0.02)] == 7 and total.application[-1] == 1
    assert total.queue[TIMES.index(0.003)] == 7 == sum(total.queue)
    assert total.response[SIZES.index(96)] == 7 and total.response[-1] == 1
    assert total.application_seconds == pytest.approx(200.14) and total.queue_seconds == pytest.approx(0.021)


def test_how_workers_ended_is_remembered_for_the_last_of_them(board: Scoreboard) -> None:
    for number in range(100):
        ends.note(
            board, number % 8, 1, 1000 + number, "crash" if number % 2 else "reload", f"end {number} " + "é" * 200
        )
    last = ends.last(board)
    assert [end.pid for end in last] == list(range(1099, 1035, -1))
    assert (last[0].slot, last[0].reason, last[1].reason) == (3, "crash", "reload")
    assert last[0].text.startswith("end 99 ééé") and abs(last[0].when - time.time()) < 60
    assert ends.by_reason(board) == {**dict.fromkeys(layout.REASONS, 0), "crash": 50, "reload": 50}


def test_the_last_hour_is_told_step_by_step(board: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine that has just started, five minutes ago would be a time that its clock never showed.
    now = 1000.0
    monkeypatch.setattr(counters, "time", SimpleNamespace(monotonic=lambda: now))
    row = board.row(board.claim(1, 0.0))
    assert [step.counters.requests for step in counters.last_hour(board)] == []
    began = now - 10 * layout.HISTORY_STEP
    for number in range(10):
        counters.remember(board, began + number * layout.HISTORY_STEP)
        counters.remember(board, began + number * layout.HISTORY_STEP + 5)  # another Arbiter, a little later
        for _ in range(number):
            row.end(1.0, 0.1, 500, 0)
    steps = counters.last_hour(board)
    assert [step.counters.requests for step in steps] == list(range(10))
    assert [step.counters.answers["5xx"] for step in steps] == list(range(10))
    assert [step.seconds for step in steps] == [layout.HISTORY_STEP] * 10
    assert counters.lately(board, 60.0).counters.requests == 8 + 9
    assert counters.lately(board, 60.0).seconds == 60 and counters.lately(board, 3600.0).seconds == 300
    assert counters.lately(board, 3600.0).counters.requests == 45
    for number in range(300):  # days later
        counters.remember(board, now + number * layout.HISTORY_STEP)


def test_stacks_are_kept_from_their_end(board: Scoreboard) -> None:
    slot = board.claim(1, 0.0)
    assert board.stacks(slot) == (0.0, "")
    board.put_stacks(slot, b"x" * layout.DUMP_BYTES + b"the end")
    when, text = board.stacks(slot)
    assert abs(when - time.monotonic()) < 60 and text.endswith("xxthe end") and len(text) == layout.DUMP_BYTES
    board.put_stacks(slot, b"short")
    assert board.stacks(slot)[1] == "short"


def test_a_generation_tells_of_itself_until_it_is_forgotten(board: Scoreboard) -> None:
    board.tell(7, Stage.BOOTING, 3)
    board.tell(8, Stage.READY, 4)
    board.tell(7, Stage.READY, 5)
    assert [(era.number, era.pid, era.stage, era.target) for era in board.eras()] == [
        (7, os.getpid(), Stage.READY, 5),
        (8, os.getpid(), Stage.READY, 4),
    ]
    board.forget(7)
    board.forget(16)  # never heard of; its place is another's
    assert [era.number for era in board.eras()] == [8]


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


def test_a_drain_does_not_take_back_a_stop(board: Scoreboard) -> None:
    board.drain()
    assert (board.draining, board.stopping) == (True, False)
    board.stop()
    board.drain()
    assert (board.draining, board.stopping) == (True, True)


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
