"""A slow request is named with its stack, and goes on undisturbed."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import pytest

from django_prefork.worker.cork import CALM
from tests.handoff.clients import Kept
from tests.harness import Server, eventually


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("path", ["/sleep?s=1.1", "/burn?s=1.1"])
def test_a_slow_request_is_logged_with_its_stack_at_each_doubling(workers: str, path: str) -> None:
    with Server("--workers", workers, "--slow-request", "250ms", application="work").ready() as server:
        assert server.get(path)[0] == 200
        said = re.findall(
            rf'worker=\d gen=1 pid=\d+ slow: serving "GET {re.escape(path)} HTTP/1.1" for ([\d.]+) s, '
            r"slow_request is 0.25 s \(client 127.0.0.1\)\n((?:  .+\n?)+)",
            server.log,
        )
        ages = [float(age) for age, _ in said]
        # At 0.25, 0.5 and 1.0 s; a busy machine may be late for one.
        assert ages == sorted(ages) and 2 <= len(ages) <= 3 and ages[0] >= 0.2
        for _, stack in said:
            assert re.search(r'^  File ".*/tests/site/applications.py", line \d+, in work\n', stack), stack
            assert "django_prefork" not in stack


def test_quick_requests_are_not_slow_together() -> None:
    with Server("--workers", "1", "--slow-request", "300ms", application="work").ready() as server:
        kept = Kept(server)
        for _ in range(8):
            kept.get("/sleep?s=0.1")
        kept.close()
        assert not server.count("slow: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds answers back")
def test_answers_that_wait_for_others_do_not_wait_for_a_slow_one() -> None:
    GUARD, KERNEL = "prefork-guard lets go of [1-6]$", 0.2  # the kernel would send what waits after so many seconds
    with Server("--workers", "1", application="corked.application").ready() as server:
        (worker,) = server.workers()
        kept = [Kept(server) for _ in range(8)]

        def together(*slow: int) -> float:
            """All ask in one turn of the worker's loop; how long the first six of them waited (seconds)."""
            os.kill(worker, signal.SIGSTOP)
            for number, client in enumerate(kept):
                client.send("/slow" if number in slow else "/")
            began = time.monotonic()
            os.kill(worker, signal.SIGCONT)
            for client in kept[:6]:
                client.read()
            took = time.monotonic() - began
            for client in kept[6:]:
                client.read()
            return took

        def let_go() -> bool:
            """Nothing waits until the worker was calm for a while and has a guard, nor where the machine is busy."""
            time.sleep(CALM * 1.1)  # prefork: ok
            together()
            together()
            before = server.count(GUARD)
            took = together(6)
            return server.count(GUARD) > before and took < KERNEL

        eventually(let_go, "the guard lets go")
        for client in kept:
            client.close()
