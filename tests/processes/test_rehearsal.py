"""A child serves the paths of `warmup` once more, and each worker has the pages ready that it had to copy."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.harness import Server, eventually, require_another_user

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems copy no pages ahead")


def serve(
    *options: str,
    warmup: str = "/",
    way: str = "",
    patience: float = 60.0,
    errors: str = "",
    environment: dict[str, str] | None = None,
) -> Server:
    """With a path in `warmup`; `way` is how the rehearsal of it goes, `patience` how long it may take (seconds)."""
    return Server(
        *("--workers", "1", "--skip-checks", *(("--warmup", warmup) if warmup else ()), *options),
        application="pages.application",
        environment={"TEST_REHEARSAL": way, "TEST_PATIENCE": str(patience), **(environment or {})},
        errors=errors,
    )


def rehearsed_by(server: Server) -> int:
    """The process that was asked after the Arbiter."""
    return int(server.wait_for(r"^asked (\d+)$", times=2)[1])


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("options", [(), ("--user", "nobody")])
def test_the_pages_that_a_first_request_writes_to_are_there(options: tuple[str, ...]) -> None:
    if options:
        require_another_user()
    with serve(*options, warmup="").ready() as server:
        cold = int(server.get()[1])
    with serve(*options, errors="was ended by SIGKILL").ready() as server:
        warm = int(server.get()[1])
        # In each worker, and not only in those of the start.
        server.kill(signal.SIGKILL, server.workers()[0])
        server.wait_for("was ended by SIGKILL")
        server.full_strength(1)
        later = int(server.get()[1])
    # 300,000 objects of 16 bytes at least; the rest is what no two requests have in common.
    assert cold > 1000, cold
    assert warm < cold / 5 and later < cold / 5, (cold, warm, later)


def test_nobody_hears_of_a_rehearsal(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with serve("--access-log", "-", "--verbosity", "2", environment=environment).ready() as server:
        child = rehearsed_by(server)
        assert child != server.arbiter() and not psutil.pid_exists(child)
        assert server.count("^asked") == 2
        server.wait_for(r"^Loaded: .*, warm-up \d+\.\d s, freeze \d+\.\d s, rehearsal \d+\.\d s$")
        server.get("/known")
        server.wait_for('"GET /known HTTP')
        assert server.count('"GET / HTTP') == 0
        assert server.count(r"\[(INFO|WARNING|ERROR)\] .*rehearsal") == 0
        assert not [name for name in os.listdir(tmp_path) if str(child) in name]


def test_one_that_hangs_is_ended_and_the_server_serves_without() -> None:
    with serve(way="hangs", patience=0.3, errors="was ended by SIGKILL").ready() as server:
        child = rehearsed_by(server)
        assert not psutil.pid_exists(child)
        assert server.get()[0] == 200
        server.kill(signal.SIGKILL, server.workers()[0])
        server.wait_for(r"worker=\d+ gen=1 pid=\d+ ready", times=2)
        slower = "the first requests of each worker will be slower"
        assert server.count(rf"\[WARNING\] the rehearsal of warmup took longer than 0\.3 s: {slower}$") == 1
        assert server.count("^asked") == 2


def test_one_that_dies_is_named() -> None:
    with serve(way="dies").ready() as server:
        assert server.count(r"\[WARNING\] the rehearsal of warmup was ended by SIGKILL: ") == 1
        assert server.get()[0] == 200


def test_what_fails_in_it_is_of_use_all_the_same() -> None:
    with serve(way="fails", errors="the application failed").ready() as server:
        assert server.count("the rehearsal of warmup") == 0
        assert int(server.get()[1]) < 1000


def test_a_stop_does_not_wait_for_it() -> None:
    with serve(way="hangs") as server:
        child = psutil.Process(rehearsed_by(server))
        # What it does not need it does not hold: a socket that listens, or the Arbiter's to the Supervisor.
        held = [os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")]
        assert not [name for name in held if name.startswith("socket:")], held
        server.kill(signal.SIGTERM)
        began = time.monotonic()
        assert server.wait() == 0 and time.monotonic() - began < 5.0
        eventually(lambda: is_gone(child.pid), "it ends with its Arbiter")
        assert server.count(r"\[WARNING\]|\[ERROR\]") == 0


def test_it_does_not_outlive_an_arbiter_that_is_killed() -> None:
    with serve(way="hangs", errors="was ended by SIGKILL before it was ready") as server:
        child = rehearsed_by(server)
        arbiter = int(server.wait_for(r"^asked (\d+)$")[1])
        server.kill(signal.SIGKILL, arbiter)
        assert server.wait(15) != 0
        eventually(lambda: is_gone(child), "it ends with its Arbiter")


def test_each_generation_has_its_own() -> None:
    with serve().ready() as server:
        server.kill(signal.SIGHUP)
        server.ready(2)
        assert server.count("^asked") == 4
        assert int(server.get()[1]) < 1000


def test_there_is_none_while_you_write_code() -> None:
    with serve("--reload").ready() as server:
        assert server.count("^asked") == 1


def test_nor_for_what_has_failed_to_warm_up() -> None:
    options = ("--workers", "1", "--warmup", "/boom/,tests.site.warm.fill")
    with Server(*options, application="warm.application", errors="warm-up|Internal").ready() as server:
        assert server.count("^asked") == 1 and server.count("^filled") == 1
