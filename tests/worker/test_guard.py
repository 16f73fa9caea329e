from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from django_prefork.worker.guard import Guard
from tests.harness import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who waits for a CPU")


@contextlib.contextmanager
def guarded(work: Callable[[], None]) -> Iterator[Guard]:
    """Does `work` again and again, in a thread that has a guard."""
    guards: list[Guard] = []
    there, over = threading.Event(), threading.Event()

    def run() -> None:
        # Whoever has the rights is not kept from the CPU by what else runs.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -20)
        guards.append(Guard(lambda: None, lambda *_: None, lambda: 0))
        there.set()
        while not over.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert there.wait(10)
        yield guards[0]
    finally:
        over.set()
        thread.join()


def compute() -> None:
    """Some milliseconds of C code, without the GIL."""
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 20_000)


def becomes(expected: bool, guard: Guard) -> bool:
    """In time, and three times in a row: the machine may be busy, and a thread is between two calls now and then."""
    until = time.monotonic() + PATIENCE
    row = 0
    while row < 3 and time.monotonic() < until:
        # As if a request had just begun; of one that has had the CPU, there is a test of its own.
        row = row + 1 if guard._starves(time.monotonic()) is expected else 0
        time.sleep(0.002)
    return row == 3


def test_a_view_that_waits_or_computes_does_not_starve() -> None:
    with guarded(lambda: time.sleep(0.01)) as guard:
        assert becomes(False, guard)
    with guarded(compute) as guard:
        assert becomes(False, guard)


def test_a_view_that_cannot_have_the_cpu_starves() -> None:
    cpu = min(os.sched_getaffinity(0))
    with subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass"],
        stdout=subprocess.PIPE,
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            with guarded(compute) as guard:
                os.sched_setaffinity(guard._number, {cpu})
                os.sched_setscheduler(guard._number, os.SCHED_IDLE, os.sched_param(0))
                assert becomes(True, guard)
                other.kill()
                # On a busy machine, the least of all would go on starving. Without rights there is no way back.
                with contextlib.suppress(PermissionError):
                    os.sched_setscheduler(guard._number, os.SCHED_OTHER, os.sched_param(0))
                assert becomes(False, guard)
        finally:
            other.kill()


def test_a_view_that_has_had_the_cpu_takes_long_by_itself() -> None:
    """However busy the machine: else what came meanwhile would wait for it although siblings are idle."""
    cpu = min(os.sched_getaffinity(0))
    others = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os; os.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass",
            ],
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        with guarded(compute) as guard:
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, guard._number, 0)
            os.sched_setaffinity(guard._number, {cpu})
            began = time.monotonic()
            guard._starves(began)
            used = time.pthread_getcpuclockid(guard._thread)
            enough = time.clock_gettime(used) + 0.01
            until = began + PATIENCE
            while time.clock_gettime(used) < enough and time.monotonic() < until:
                time.sleep(0.002)  # prefork: ok (CPU time passes for another)
            for _ in range(50):
                time.sleep(0.001)  # prefork: ok (others have the CPU)
                assert not guard._starves(began)
            until = time.monotonic() + PATIENCE
            while not guard._starves(time.monotonic()) and time.monotonic() < until:
                time.sleep(0.001)  # prefork: ok (as above)
            assert time.monotonic() < until, "one that has only just begun does starve"
    finally:
        for other in others:
            other.kill()
            other.wait()
            assert other.stdout is not None
            other.stdout.close()


def begin(guard: Guard) -> None:
    """What the service does around the application."""
    guard.began = time.monotonic()
    if guard.parked:
        guard.wake()


def end(guard: Guard) -> None:
    guard.began = 0.0
    if guard.acting:
        guard.part()


def test_what_the_guard_does_meanwhile_is_done_when_the_request_has_ended() -> None:
    """So that nothing of it needs a lock: the access log is written by both threads."""
    entered, may_go_on = threading.Event(), threading.Event()

    def meanwhile() -> None:
        entered.set()
        assert may_go_on.wait(PATIENCE)

    guard = Guard(lambda: None, lambda *_: None, lambda: 0, meanwhile)
    guard.start()
    begin(guard)
    assert entered.wait(PATIENCE)
    later = threading.Timer(0.05, may_go_on.set)
    later.start()
    end(guard)
    assert may_go_on.is_set()
    later.join()


def test_a_mistake_does_not_end_the_guard(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[float] = []
    again = threading.Event()

    def meanwhile() -> None:
        calls.append(time.monotonic())
        if len(calls) > 1:
            again.set()
        raise OSError("as planned")

    guard = Guard(lambda: None, lambda *_: None, lambda: 0, meanwhile)
    guard.start()
    begin(guard)
    assert again.wait(PATIENCE)
    end(guard)
    assert "a mistake of the server's" in caplog.text
