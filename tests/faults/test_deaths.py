"""Workers that die, and workers that cannot be born."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.tools import control_group, died, injected, need, serve, status, zombies
from tests.harness import Clients, read_answer


def test_a_worker_killed_in_a_request_costs_that_request_alone() -> None:
    with serve("--workers", "2", errors="was ended by SIGKILL").ready() as server:
        server.full_strength(2)
        asked = server.ask("/sleep?s=60")
        server.wait_for("sleeping")
        # Whoever answers meanwhile is the other one.
        other = json.loads(server.get()[1])["pid"]
        with Clients(server, 2) as fresh, Clients(server, 2, keep_alive=True) as kept:
            (victim,) = set(server.workers()) - {other}
            server.kill(signal.SIGKILL, victim)
            assert died(asked)
            server.wait_for(rf'pid={victim} was ended by SIGKILL while serving "GET /sleep\?s=60 HTTP/1.1"')
            fresh.some_more()
            kept.some_more()
        assert fresh.failures == [] and kept.failures == [] and kept.connections == 2
        assert server.count("was ended by SIGKILL") == 1


@pytest.mark.parametrize(("path", "end"), [("/segv", "SIGSEGV"), ("/abort", "SIGABRT")])
def test_a_crash_in_c_costs_one_worker(path: str, end: str) -> None:
    with serve("--workers", "2", errors=f"was ended by {end}").ready() as server:
        server.full_strength(2)
        asked = server.ask(path)
        assert died(asked)
        server.wait_for(rf'was ended by {end} while serving "GET {path} HTTP/1.1"')
        assert server.get()[0] == 200
        server.full_strength(2)


def test_eight_workers_killed_in_one_instant_are_all_replaced_and_reaped() -> None:
    with serve("--workers", "8", errors="was ended by SIGKILL").ready() as server:
        victims = server.full_strength(8)
        for pid in victims:
            server.kill(signal.SIGKILL, pid)
        server.wait_for("was ended by SIGKILL", times=8)
        assert not set(victims) & set(server.full_strength(8))
        assert zombies(server) == []
        assert server.count("was ended by SIGKILL") == 8


def test_a_fork_that_fails_is_tried_again_and_hurts_nobody() -> None:
    with serve("--workers", "2", errors="was ended by SIGKILL|cannot fork").ready() as server:
        victim, other = server.full_strength(2)
        with injected(server.arbiter(), "/^(clone|clone3|fork|vfork)$", "error=EAGAIN"):
            server.kill(signal.SIGKILL, victim)
            server.wait_for(r"cannot fork: Resource temporarily unavailable; the next worker starts in 0\.\d s", 2)
            assert json.loads(server.get()[1])["pid"] == other
        server.full_strength(2)
        assert other in server.workers()


def test_a_reload_that_cannot_be_started_is_tried_again() -> None:
    with serve("--workers", "1", errors="cannot start gen=2|cannot try").ready() as server:
        with injected(server.pid, "/^(clone|clone3|fork|vfork)$", "error=ENOMEM"):
            server.kill(signal.SIGHUP)
            server.wait_for("cannot start gen=2: Cannot allocate memory; a new generation starts in 1 s")
            server.kill(signal.SIGUSR2)
            server.wait_for(r"SIGUSR2: cannot try the new interpreter \(Cannot allocate memory\): all stays as it is")
            assert server.get()[0] == 200
        server.ready(2)
        server.wait_for("arbiter gen=1 leaves: retired")


def test_a_limit_of_processes_is_survived() -> None:
    with (
        control_group("pids") as group,
        serve("--workers", "2", errors="was ended by SIGKILL|cannot fork").ready() as server,
    ):
        victim, _ = server.full_strength(2)
        (group / "cgroup.procs").write_text(str(server.arbiter()))
        (group / "pids.max").write_text("1")
        server.kill(signal.SIGKILL, victim)
        server.wait_for("cannot fork: Resource temporarily unavailable")
        assert server.get()[0] == 200
        (group / "pids.max").write_text("max")
        server.full_strength(2)


def test_out_of_memory_the_worker_dies_and_not_its_arbiter() -> None:
    with (
        control_group("memory") as group,
        serve(
            "--workers", "2", errors="was ended by SIGKILL", environment={"TEST_APPLICATION": HUNGRY}
        ).ready() as server,
    ):
        server.full_strength(2)
        for pid in server.processes():
            (group / "cgroup.procs").write_text(str(pid))
        (group / "memory.limit_in_bytes").write_text(str(200 * 1024 * 1024))
        asked = server.ask("/?mib=400")
        assert died(asked)
        server.wait_for(
            r'was ended by SIGKILL while serving "GET /\?mib=400 HTTP/1.1"; '
            r"the kernel has killed for lack of memory in the last \d+\.\d s"
        )
        server.full_strength(2)
        assert server.get("/?mib=0")[0] == 200
        assert psutil.pid_exists(server.arbiter())


def test_a_worker_is_killed_sooner_than_its_arbiter_and_blamed_on_memory_only_with_evidence() -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    with serve("--workers", "1", errors="was ended by SIGKILL").ready() as server:
        (worker,) = server.full_strength(1)
        assert score(server.pid) == score(server.arbiter()) < score(worker)
        server.kill(signal.SIGKILL, worker)
        assert "memory" not in server.wait_for(f"pid={worker} was ended by SIGKILL.*")[0]


HUNGRY = "tests.site.applications.hungry"


def test_workers_that_fail_at_boot_in_steady_state_are_tried_until_they_come(tmp_path: Path) -> None:
    """The database is down when a worker is replaced, or does not answer: a hook ends the worker, or hangs."""
    mood = tmp_path / "mood"
    mood.write_text("")
    environment = {"TEST_MOOD": str(mood)}
    errors = r"was ended by SIGKILL|exited with status 9|not ready after 1 s"
    with serve(
        "--workers", "2", "--boot-timeout", "1", application="moody", environment=environment, errors=errors
    ).ready() as server:
        victim, other = server.full_strength(2)
        mood.write_text("die")
        server.kill(signal.SIGKILL, victim)
        server.wait_for("exited with status 9", times=3)
        assert json.loads(server.get()[1])["pid"] == other
        mood.write_text("hang")
        server.wait_for("not ready after 1 s: its stacks, then SIGKILL")
        server.wait_for(r'File ".*applications.py", line \d+ in _moody')
        mood.write_text("")
        assert other in server.full_strength(2)
    # The pause doubles, and is at most a quarter shorter than that.
    deaths = [line for line in server.lines if "exited with status 9" in line]
    assert 3 <= len(deaths) <= 5, server.log


def test_a_worker_without_descriptors_pauses_and_recovers() -> None:
    with serve("--workers", "1", errors="cannot accept").ready() as server:
        (worker,) = server.full_strength(1)
        taken = psutil.Process(worker).num_fds()
        prlimit(worker, taken + 6)
        idle = [server.ask() for _ in range(4)]
        for sock in idle:
            assert read_answer(sock)[0] == 200
        server.get("/open?n=10&still=1")
        crowd = [server.ask() for _ in range(10)]
        server.wait_for(r"cannot accept: Too many open files; raise the descriptor limit")
        # It closes who is idle, and so gets through the crowd one by one. A connection whose request was still on its
        # way counts as idle.
        assert sum(status(sock) == 200 for sock in crowd) >= 5
        assert server.get("/close")[0] == 200
        assert server.workers() == [worker]
        assert server.count("cannot accept") <= 3


def test_an_application_without_descriptors_is_logged_and_costs_no_worker() -> None:
    with serve("--workers", "1", errors="cannot accept|the application failed").ready() as server:
        (worker,) = server.full_strength(1)
        prlimit(worker, psutil.Process(worker).num_fds() + 2)
        asked = server.ask("/open?n=10")
        assert read_answer(asked)[0] == 500
        server.wait_for("the application failed: GET /open|asks for a successor")
        assert server.count("the application failed: GET /open") == 1
        assert server.count("asks for a successor") == 0


def prlimit(pid: int, descriptors: int) -> None:
    import resource

    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def test_accepting_that_fails_costs_no_connection() -> None:
    with serve("--workers", "1", errors="cannot accept").ready() as server:
        (worker,) = server.full_strength(1)
        for number, error in enumerate(("ECONNABORTED", "EINTR", "ENFILE", "EPROTO")):
            with injected(worker, "accept4", f"error={error}:when=1"):
                assert server.get(f"/?id={number}")[0] == 200
        assert server.count("cannot accept: Too many open files in system") == 1
        assert server.workers() == [worker]


def test_workers_that_all_expire_at_once_leave_no_gap() -> None:
    with serve("--workers", "3", "--max-requests", "30", "--max-requests-jitter", "0").ready() as server:
        server.full_strength(3)
        with Clients(server, 3) as fresh, Clients(server, 3, keep_alive=True) as kept:
            server.wait_for("retires: expired", times=6)
            fresh.some_more()
            kept.some_more()
        assert fresh.failures == [] and kept.failures == [] and kept.connections == 3
        server.stop()
    serving: set[str] = set()
    for line in server.lines:
        if match := re.search(r"pid=(\d+) ready$", line):
            serving.add(match[1])
        elif match := re.search(r"pid=(\d+) retires: expired", line):
            serving.remove(match[1])
            assert len(serving) >= 3, server.log


def test_children_of_the_application_are_its_own_to_wait_for() -> None:
    with serve("--workers", "2").ready() as server:
        for _ in range(3):
            assert json.loads(server.get("/subprocess")[1])["status"] == [0, 1, 2, 3, 4]
        assert zombies(server) == []


def test_a_child_that_outlives_the_server_keeps_no_socket_of_it() -> None:
    with serve("--workers", "1").ready() as server:
        port = server.port
        child = json.loads(server.get("/child")[1])["child"]
        try:
            assert server.stop() == 0
            with serve("--workers", "1", bind=f"127.0.0.1:{port}").ready() as again:
                assert again.get()[0] == 200
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_database_that_is_open_before_the_fork_is_not_shared(tmp_path: Path) -> None:
    environment = {"TEST_DATABASE": str(tmp_path / "x.sqlite")}
    with serve(
        "--workers", "1", application="preloaded", settings="tests.faults.settings", environment=environment
    ).ready() as server:
        assert server.count("a database is open") == 1
        assert json.loads(server.get()[1]) == []


def test_signals_that_the_parent_ignored_or_blocked_are_heard() -> None:
    script = (
        "import os, signal, sys;"
        "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)];"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    prefix = (need("python3", "python3"), "-c", script)
    with serve("--workers", "2", prefix=prefix, errors="was ended by SIGKILL").ready() as server:
        victim = server.full_strength(2)[0]
        server.kill(signal.SIGKILL, victim)
        server.wait_for(f"pid={victim} was ended by SIGKILL")
        server.full_strength(2)
        server.kill(signal.SIGHUP)
        server.ready(2)
        server.wait_for("arbiter gen=1 leaves: retired")
        assert json.loads(server.get("/subprocess")[1])["status"] == [0, 1, 2, 3, 4]
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 3.0
