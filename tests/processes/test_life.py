"""Start, stop, and what happens when processes die."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import time

import psutil
import pytest

from tests.harness import Clients, Server, eventually, read_answer, send


def test_three_workers_under_one_arbiter_all_serve() -> None:
    with Server("--workers", "3", application="work").ready() as server:
        workers = server.full_strength(3)
        # All at once, and slow enough that no worker can take two.
        asked = [server.ask("/sleep?s=0.5", "Connection: close") for _ in range(3)]
        served = {json.loads(read_answer(sock)[2])["pid"] for sock in asked}
        for sock in asked:
            sock.close()
        assert served == set(workers)
        arbiter = psutil.Process(server.arbiter())
        assert {child.pid for child in arbiter.children()} == set(workers)
        assert arbiter.ppid() == server.pid


def test_the_supervisor_is_light_and_loads_nothing_of_the_project() -> None:
    with Server("--workers", "1").ready() as server:
        supervisor = psutil.Process(server.pid)
        assert "-I" in supervisor.cmdline() and "-S" in supervisor.cmdline()
        loaded = " ".join(region.path for region in supervisor.memory_maps())
        assert "site-packages" not in loaded
        assert supervisor.memory_info().rss < 20 * 1024 * 1024


def test_a_killed_worker_is_replaced_in_under_a_second() -> None:
    with Server("--workers", "2", errors=r"was ended by SIGKILL").ready() as server:
        victim = server.full_strength(2)[0]
        server.kill(signal.SIGKILL, victim)
        began = time.monotonic()
        server.wait_for(r"worker=\d+ gen=1 pid=\d+ ready", times=3)
        assert time.monotonic() - began < 1.0
        assert victim not in server.full_strength(2)


def test_workers_killed_again_and_again_under_load_fail_only_what_they_were_serving() -> None:
    with Server("--workers", "3", application="work", errors=r"was ended by SIGKILL").ready() as server:
        kills = 0
        with Clients(server, 4, "/pid") as clients:
            deadline = time.monotonic() + 10
            for round in range(20):
                victims = server.workers() if round % 2 else server.workers()[:1]
                for pid in victims:
                    try:
                        server.kill(signal.SIGKILL, pid)
                        kills += 1
                    except ProcessLookupError:
                        pass
                clients.some_more(3)
                while time.monotonic() < deadline - 10 + (round + 1) * 0.5:
                    time.sleep(0.02)  # prefork: ok (the storm's rhythm: 20 times in 10 s)
            began = time.monotonic()
            server.full_strength(3)
            assert time.monotonic() - began < 2.0
            clients.some_more(50)
        assert psutil.pid_exists(server.arbiter())
        assert not [failure for failure in clients.failures if "refused" in failure.lower()]
        assert len(clients.failures) <= kills
        assert {status for status, _ in clients.answers} == {200}


def test_term_answers_every_running_request_and_leaves_nothing() -> None:
    with Server("--workers", "20", application="work").ready() as server:
        server.full_strength(20)
        asked = [server.ask(f"/sleep?s=1&id={number}") for number in range(20)]
        server.wait_for("sleeping", times=20)
        server.kill(signal.SIGTERM)
        answers = [read_answer(sock) for sock in asked]
        assert [json.loads(body)["id"] for _, _, body in answers] == [str(number) for number in range(20)]
        assert {headers.get("connection") for _, headers, _ in answers} <= {"close", None}
        for sock in asked:
            sock.close()
        assert server.wait() == 0
        assert not server.processes()


def test_a_second_term_stops_at_once() -> None:
    with Server("--workers", "1", application="work", errors=r"killed|SIGKILL").ready() as server:
        with server.ask("/sleep?s=60"):
            server.wait_for("sleeping")
            server.kill(signal.SIGTERM)
            server.wait_for("SIGTERM: stopping")
            began = time.monotonic()
            server.insist()
            assert server.wait() == 0
            assert time.monotonic() - began < 2.0
        assert server.count(r'serving "GET /sleep\?s=60 HTTP/1.1" for .* killed') == 1


def test_two_signals_of_the_same_moment_are_one_stop() -> None:
    with Server("--workers", "1", application="work").ready() as server:
        with server.ask("/sleep?s=1") as sock:
            server.wait_for("sleeping")
            server.kill(signal.SIGSTOP)
            server.kill(signal.SIGTERM)
            server.kill(signal.SIGINT)  # not TERM again: the kernel would keep one
            server.kill(signal.SIGCONT)
            assert read_answer(sock)[0] == 200
            assert server.wait() == 0
        assert server.count("at once") == 0


def test_a_stop_of_all_processes_is_one_though_the_arbiter_is_heard_first() -> None:
    with Server("--workers", "1", application="work").ready() as server:
        with server.ask("/sleep?s=1") as sock:
            server.wait_for("sleeping")
            arbiter = psutil.Process(server.arbiter())
            server.kill(signal.SIGSTOP)
            switches = arbiter.num_ctx_switches().voluntary
            server.kill(signal.SIGTERM, arbiter.pid)
            told = 2  # it woke, and went to sleep again
            eventually(lambda: arbiter.num_ctx_switches().voluntary >= switches + told, "the arbiter has passed it on")
            server.kill(signal.SIGTERM)
            server.kill(signal.SIGCONT)
            assert read_answer(sock)[0] == 200
            assert server.wait() == 0
        assert server.count("SIGTERM to the arbiter: stopping") == 1
        assert server.count("at once") == 0


def test_what_outlasts_graceful_timeout_is_named_and_killed() -> None:
    with Server("--workers", "1", "--graceful-timeout", "0.5", application="work", errors="killed") as server:
        server.ready()
        with server.ask("/sleep?s=60"):
            server.wait_for("sleeping")
            began = time.monotonic()
            assert server.stop() == 0
            assert 0.4 < time.monotonic() - began < 3.0
        assert server.count(r'pid=\d+ serving "GET /sleep\?s=60 HTTP/1.1" for .* killed') == 1


def test_control_c_stops_once_and_quietly() -> None:
    with Server("--workers", "2").ready() as server:
        server.full_strength(2)
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
        assert "Traceback" not in server.log and "KeyboardInterrupt" not in server.log


def test_an_arbiter_killed_under_load_fails_no_request() -> None:
    with Server("--workers", "3", application="work", errors=r"the arbiter gen=1").ready() as server:
        old = server.full_strength(3)
        with Clients(server, 2, "/pid") as fresh, Clients(server, 2, "/pid", keep_alive=True) as kept:
            server.kill(signal.SIGKILL, server.arbiter())
            server.ready(2)
            eventually(lambda: not set(old) & set(server.processes()), "the old workers have left")
            fresh.some_more()
            kept.some_more()
        assert fresh.failures == [] and kept.failures == []
        assert {status for status, _ in fresh.answers + kept.answers} == {200}
        generations = {json.loads(body)["generation"] for _, body in fresh.answers}
        assert generations == {1, 2}
        assert server.count("gen=2 pid=.* started") == 1


def test_without_its_supervisor_everything_ends_and_the_port_is_free() -> None:
    with Server("--workers", "2", application="work", errors="the supervisor is gone").ready() as server:
        port = server.port
        with server.ask("/sleep?s=1&id=last") as sock:
            server.wait_for("sleeping")
            server.kill(signal.SIGKILL)
            # Before the last request is done: the port is not kept by those who finish it.
            with Server("--workers", "1", bind=f"127.0.0.1:{port}").ready() as next_server:
                assert next_server.get()[0] == 200
            assert json.loads(read_answer(sock)[2])["id"] == "last"
        eventually(lambda: not server.processes(), "nothing is left")


def test_as_pid_1_it_stops_on_term_and_reaps_orphans() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a PID namespace of its own (unshare)")
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    with Server("--workers", "1", application="orphan", prefix=prefix) as server:
        server.wait_for("arbiter gen=1 pid=2 ready")
        assert server.get()[1] == b"forked\n"
        (supervisor,) = psutil.Process(server.pid).children()
        eventually(
            lambda: not [p for p in supervisor.children(recursive=True) if p.status() == psutil.STATUS_ZOMBIE],
            "the orphaned grandchild is reaped",
        )
        eventually(lambda: len(supervisor.children(recursive=True)) == 2, "only arbiter and worker are left")
        supervisor.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.count("stopped, exit status 0") == 1


def test_a_term_while_it_boots_ends_it_at_once() -> None:
    with Server("--workers", "1", application="slow_import.application") as server:
        server.wait_for("importing slowly")
        began = time.monotonic()
        server.kill(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 1.0


def test_more_and_fewer_workers() -> None:
    with Server("--workers", "1").ready() as server:
        server.full_strength(1)
        for number in (2, 3):
            server.kill(signal.SIGTTIN)
            server.wait_for(f"SIGTTIN: {number} workers")
        server.full_strength(3)
        for times in range(1, 6):
            server.kill(signal.SIGTTOU)
            server.wait_for("SIGTTOU: . workers", times=times)
        server.wait_for("SIGTTOU: 1 workers", times=4)
        server.full_strength(1)
        assert server.get()[0] == 200


def test_winch_retires_all_workers_and_ttin_brings_them_back() -> None:
    with Server("--workers", "2").ready() as server:
        server.full_strength(2)
        server.kill(signal.SIGWINCH)
        eventually(lambda: not server.workers(), "no worker is left")
        with server.ask("/", "Connection: close") as sock:  # accepted by the kernel; waits
            server.kill(signal.SIGTTIN)
            assert read_answer(sock)[0] == 200


def test_max_requests_replaces_a_worker_after_its_successor_is_ready() -> None:
    with Server("--workers", "1", "--max-requests", "10", application="work").ready() as server:
        with Clients(server, 2, "/pid") as clients, Clients(server, 2, "/pid", keep_alive=True) as kept:
            server.wait_for("asks for a successor: max_requests 10", times=3)
        assert clients.failures == [] and kept.failures == []
        assert kept.connections == 2
        events = [
            (match[1], match[2])
            for line in server.lines
            if (match := re.search(r"worker=.* pid=(\d+) (asks for a successor|ready|retires: expired)", line))
        ]
        # The successor may have served its ten and ask for one itself, before its Arbiter comes to retire the first.
        first, asks = next((pid, at) for at, (pid, what) in enumerate(events) if what == "asks for a successor")
        ready = next(at for at, (_, what) in enumerate(events) if what == "ready" and at > asks)
        assert events.index((first, "retires: expired")) > ready


def test_connections_in_the_backlog_are_answered_at_the_stop() -> None:
    with Server("--workers", "1", application="work").ready() as server:
        with server.ask("/sleep?s=0.5") as first:
            server.wait_for("sleeping")
            waiting = [server.ask("/pid") for _ in range(10)]
            server.kill(signal.SIGTERM)
            assert read_answer(first)[0] == 200
            for sock in waiting:
                assert read_answer(sock)[0] == 200
                assert sock.recv(1) == b""
                sock.close()
        assert server.wait() == 0


def test_an_idle_keep_alive_connection_does_not_hold_up_the_stop() -> None:
    with Server("--workers", "1").ready() as server, server.ask() as sock:
        assert read_answer(sock)[1].get("connection") is None
        began = time.monotonic()
        server.kill(signal.SIGTERM)
        assert sock.recv(1) == b""
        assert server.wait() == 0
        assert time.monotonic() - began < 1.5


def test_a_stopped_arbiter_murders_nobody_when_it_goes_on() -> None:
    with Server("--workers", "1", "--timeout", "2", application="work").ready() as server:
        asked = server.ask("/sleep?s=1.5")
        server.wait_for("sleeping")
        worker = server.workers()[0]
        # All of it stands still, as on a suspended machine.
        for pid in (worker, server.arbiter()):
            server.kill(signal.SIGSTOP, pid)
        time.sleep(3)  # prefork: ok (the suspension itself)
        for pid in (server.arbiter(), worker):
            server.kill(signal.SIGCONT, pid)
        assert read_answer(asked)[0] == 200
        assert server.workers() == [worker]


def test_a_server_that_was_ever_healthy_never_stops_itself() -> None:
    with Server("--workers", "1", application="work", errors=r"exited with status 3").ready() as server:
        for number in range(7):
            with pytest.raises((OSError, http.client.HTTPException)):
                server.get("/exit?status=3")
            server.wait_for("exited with status 3", times=number + 1)
        assert server.get("/pid")[0] == 200


def test_exit_codes_have_no_magic_meaning() -> None:
    with Server("--workers", "1", application="work", errors=r"exited with status|SystemExit|failed").ready() as server:
        status, _ = server.get("/system-exit")
        assert status == 500
        server.wait_for("asks for a successor: the application raised SystemExit")
        assert server.get("/pid")[0] == 200


def test_no_descriptor_of_the_server_reaches_a_subprocess_of_the_application() -> None:
    with Server("--workers", "1", application="descriptors").ready() as server:
        names = json.loads(server.get()[1])
        assert [name for name in names if "socket" in name or "memfd" in name or "eventpoll" in name] == []


def test_a_fork_in_a_view_cannot_serve() -> None:
    with Server("--workers", "1", application="forks").ready() as server, server.ask() as sock:
        assert read_answer(sock)[2] == b"parent\n"
        # The next answer on this connection is the parent's again: the child said nothing.
        send(sock, "/", "Connection: close")
        assert read_answer(sock)[2] == b"parent\n"
        assert sock.recv(1) == b""
