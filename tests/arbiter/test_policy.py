from __future__ import annotations

from dataclasses import dataclass

import pytest

from django_prefork.arbiter import policy


@dataclass
class Worker:
    slot: int
    serves: int = 2


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"),
    [
        (1, 0.0, 0.1),
        (2, 0.0, 0.2),
        (5, 0.0, 1.6),
        (9, 0.0, 25.6),
        (10, 0.0, 30.0),
        (10_000, 0.0, 30.0),
        (1, 1.0, 0.075),
        (10, 1.0, 22.5),
    ],
)
def test_each_failure_doubles_the_wait_up_to_half_a_minute(failures: int, chance: float, seconds: float) -> None:
    assert policy.backoff(failures, chance) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("slots", "target", "retired"),
    [
        ([0, 1, 2], 3, []),
        ([0, 1, 2], 5, []),
        ([2, 0, 1], 1, [2, 1]),
        ([0, 7, 3], 2, [7]),
        ([0, 1], 0, [1, 0]),
        ([], 1, []),
    ],
)
def test_the_highest_slots_go_first(slots: list[int], target: int, retired: list[int]) -> None:
    assert [worker.slot for worker in policy.surplus([Worker(slot) for slot in slots], target)] == retired


@pytest.mark.parametrize(
    ("since", "limit", "credit", "now", "late"),
    [
        (100.0, 30.0, 0.0, 129.9, False),
        (100.0, 30.0, 0.0, 130.0, True),
        (100.0, 30.0, 10.0, 139.9, False),
        (100.0, 30.0, 10.0, 140.0, True),
        (100.0, 0.0, 0.0, 1e9, False),
    ],
)
def test_a_limit_counts_only_the_time_that_there_was(
    since: float, limit: float, credit: float, now: float, late: bool
) -> None:
    assert policy.overdue(since, limit, credit, now) is late


@pytest.mark.parametrize(("planned", "now", "lost"), [(10.0, 10.5, 0.0), (10.0, 9.0, 0.0), (10.0, 70.0, 60.0)])
def test_only_a_long_sleep_is_time_lost(planned: float, now: float, lost: float) -> None:
    assert policy.lost_time(planned, now) == lost


def test_who_is_not_ready_yet_goes_before_who_serves() -> None:
    serving, booting, expiring = Worker(7, serves=2), Worker(0, serves=0), Worker(1, serves=1)
    assert policy.surplus([serving, booting, expiring], 1) == [booting, expiring]
