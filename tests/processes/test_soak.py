"""Short runs of `python -m tests.soak`."""

from __future__ import annotations

from tests import soak


def test_under_mixed_load_nothing_grows_and_nothing_warns() -> None:
    soak.steady(10, print)


def test_reloads_in_a_row_under_load_drop_nobody() -> None:
    soak.reload(0, print, times=4)


def test_workers_that_come_and_go_drop_nobody() -> None:
    soak.scale(3, print)


def test_workers_that_are_killed_fail_only_what_had_reached_them() -> None:
    soak.kill(1.5, print)
