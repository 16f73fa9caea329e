from __future__ import annotations

import signal

import pytest

from django_prefork.arbiter import policy, throttle
from django_prefork.arbiter.children import Child, Stage
from django_prefork.arbiter.throttle import Throttle


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    return clock


def worker(clock: Clock, age: float, stage: Stage = Stage.SERVING) -> Child:
    child = Child(0, 1, 77, -1, -1, clock.now - age)
    child.stage = stage
    return child


def test_one_that_had_settled_is_replaced_at_once_and_what_was_before_is_forgotten(clock: Clock) -> None:
    starts = Throttle()
    assert starts.blames(worker(clock, 0.1), 1) and starts.blames(worker(clock, 0.1), 1)
    assert starts.failures == 2
    assert not starts.blames(worker(clock, policy.SETTLED), 1)
    assert (starts.failures, starts.next_start) == (0, 0.0)


def test_who_kills_one_now_and_then_meets_nobody_waiting(clock: Clock) -> None:
    starts = Throttle()
    assert not starts.blames(worker(clock, 0.1), -signal.SIGKILL)
    assert starts.blames(worker(clock, 0.1), -signal.SIGKILL)
    clock.now += policy.SPARED_EVERY
    assert not starts.blames(worker(clock, 0.1), -signal.SIGKILL)
    clock.now += policy.SPARED_EVERY
    assert starts.blames(worker(clock, 0.1, Stage.BOOTING), -signal.SIGKILL)


def test_a_kill_from_outside_never_costs_more_than_a_moment(clock: Clock) -> None:
    starts = Throttle()
    starts.failures = 20
    starts.slow_down(1)
    assert starts.next_start - clock.now >= 0.75 * policy.BACKOFF_MOST
    starts.slow_down(-signal.SIGKILL)
    assert starts.next_start - clock.now == pytest.approx(policy.BACKOFF_KILLED)


def test_no_later_end_makes_a_pause_shorter(clock: Clock) -> None:
    starts = Throttle()
    starts.pause()
    starts.blames(worker(clock, 0.1), 1)
    starts.slow_down(1)
    assert starts.next_start - clock.now == policy.BACKOFF_MOST


def test_new_code_is_forked_at_once(clock: Clock) -> None:
    starts = Throttle()
    assert starts.could_not_fork() == pytest.approx(starts.next_start - clock.now)
    assert starts.next_start > clock.now
    starts.forgive()
    assert (starts.failures, starts.next_start) == (0, 0.0)
