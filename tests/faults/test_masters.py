"""An Arbiter or a Supervisor that is killed, stopped, or signalled in every way at once; clocks that jump."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil
import pytest

from django_prefork.supervisor import terminal
from django_prefork.supervisor.terminal import Terminal
from tests.faults.tools import Clock, died, family, injected, serve, status, zombies
from tests.harness import PATIENCE, Clients, Server, eventually, free_port, read_answer, send


def test_a_server_started_again_at_once_takes_over_all_of_its_places(tmp_path: Path) -> None:
    """After `kill -9` of the Supervisor, while one of the old workers is still at a request."""
    pid_file, path = tmp_path / "pid", tmp_path / "socket"
    with free_port() as port:
        pass
    arguments = ("--workers", "2", "--pid-file", str(pid_file), "--bind", f"unix:{path}")
    with serve(*arguments, bind=f"127.0.0.1:{port}", errors="the supervisor is gone").ready() as server:
        server.full_strength(2)
        asked = server.ask("/sleep?s=1.5&id=last")
        server.wait_for("sleeping")
        server.kill(signal.SIGKILL)
        server.wait_for("the supervisor is gone: stopping")
        server.wait_for("leaves: the supervisor is gone")  # the worker that was idle
        with serve(*arguments, bind=f"127.0.0.1:{port}").ready() as again:
            assert again.get()[0] == 200
            assert pid_file.read_text() == f"{again.pid}\n"
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                send(sock, "/", "Connection: close")
                assert read_answer(sock)[0] == 200
            assert json.loads(read_answer(asked)[2])["id"] == "last"
            eventually(lambda: not server.processes(), "the old one has left")
            assert path.exists() and pid_file.exists()  # the new one's, and not touched by the old
            assert again.stop() == 0
        assert not path.exists() and not pid_file.exists()


def test_the_port_is_free_at_once_although_all_workers_are_busy() -> None:
    with serve("--workers", "1", errors="the supervisor is gone").ready() as server:
        asked = server.ask("/sleep?s=2")
        server.wait_for("sleeping")
        server.kill(signal.SIGKILL)
        server.wait_for("the supervisor is gone: stopping")
        with serve("--workers", "1", bind=f"127.0.0.1:{server.port}", errors="CommandError") as again:
            again.wait_for("(in use|ready)")
            served = again.count("in use") == 0
        assert read_answer(asked)[0] == 200
    assert served


def test_a_worker_that_is_told_to_leave_since_the_supervisor_died_gives_its_clients_to_nobody() -> None:
    """It hears of it from the Arbiter, at a request, before it could see so by itself; its siblings leave, too."""
    with serve("--workers", "1", errors="the supervisor is gone").ready() as server, server.connect() as kept:
        send(kept, "/")
        assert read_answer(kept)[0] == 200
        asked = server.ask("/sleep?s=1&id=last")
        server.wait_for("sleeping")
        server.kill(signal.SIGKILL)
        server.wait_for("the supervisor is gone: stopping")
        send(kept, "/")
        assert json.loads(read_answer(asked)[2])["id"] == "last"
        assert read_answer(kept)[0] == 200
        server.wait_for("leaves: the supervisor is gone")


def test_workers_serve_on_while_both_masters_stand_still() -> None:
    with serve("--workers", "2").ready() as server:
        workers = server.full_strength(2)
        for pid in (server.pid, server.arbiter()):
            server.kill(signal.SIGSTOP, pid)
        with Clients(server, 2) as fresh, Clients(server, 2, keep_alive=True) as kept:
            fresh.some_more(200)
            kept.some_more(200)
        for pid in (server.arbiter(), server.pid):
            server.kill(signal.SIGCONT, pid)
        assert fresh.failures == [] and kept.failures == []
        assert server.get()[0] == 200 and server.workers() == workers


def test_a_wall_clock_that_jumps_ends_nothing_and_keeps_no_time_limit(tmp_path: Path) -> None:
    clock = Clock(tmp_path)

    def date(server: Server) -> datetime:
        with server.ask("/", "Connection: close") as sock:
            return parsedate_to_datetime(read_answer(sock)[1]["date"])

    arguments = ("--workers", "2", "--timeout", "2", "--max-worker-lifetime", "3600", "--graceful-timeout", "1")
    with serve(*arguments, environment=clock.environment, errors=r"timeout is 2 s|sleep|killed|failed") as server:
        server.ready()
        workers = server.full_strength(2)
        with Clients(server, 1, keep_alive=True) as kept:
            for days in (1, -1):
                asked = server.ask(f"/sleep?s=0.3&id={days}")
                clock.jump(days * 86400)
                assert json.loads(read_answer(asked)[2])["id"] == str(days)
                wanted = datetime.now(UTC) + timedelta(days=days)
                eventually(lambda wanted=wanted: abs(date(server) - wanted) < timedelta(hours=1), "Date follows")
                kept.some_more()
            assert server.workers() == workers and kept.failures == [] and kept.connections == 1
        # Nor is a limit lost: while the clock stands a day behind, the request is over its time after two seconds.
        asked = server.connect()
        began = time.monotonic()
        send(asked, "/sleep?s=60")
        assert status(asked) in (0, 500, 503, 504)  # closed, or told so
        assert 1.5 < time.monotonic() - began < 5.0
        server.full_strength(2)
        # And so at the stop.
        asked = server.ask("/sleep?s=60")
        server.wait_for("sleeping", times=4)
        server.kill(signal.SIGTERM)
        server.wait_for("SIGTERM: stopping")
        clock.jump(86400)
        began = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - began < 4.0


def test_a_term_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path) -> None:
    """Six servers, each with a TERM a little later in its start."""
    chance = random.Random(16)
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(6):
            arguments = ("--workers", "2", "--pid-file", f"{tmp_path}/pid{number}")
            server = stack.enter_context(serve(*arguments, bind=f"unix:{tmp_path}/s{number}"))
            servers.append(server)
        began = time.monotonic()
        for number, server in enumerate(servers):
            moment = began + number * 0.12 + chance.random() * 0.1
            time.sleep(max(0.0, moment - time.monotonic()))  # prefork: ok (the moment is the test)
            server.kill(signal.SIGTERM)
        for server in servers:
            assert server.wait() in (0, -signal.SIGTERM)
            assert "Traceback" not in server.log, server.log
        assert list(tmp_path.iterdir()) == []


def test_stop_signals_of_all_kinds_at_once_stop_once() -> None:
    with serve("--workers", "2", errors="killed|SIGKILL").ready() as server:
        asked = server.ask("/sleep?s=60")
        server.wait_for("sleeping")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ProcessLookupError):
                server.kill(number)
        assert died(asked)
        assert server.wait() == 0
        assert "Traceback" not in server.log and server.count(r": stopping$") == 1
        assert server.count("stopped, exit status 0") == 1


def test_every_order_at_once_ends_with_the_last_one() -> None:
    # A generation that boots while the Supervisor is replaced begins anew.
    with serve("--workers", "2", errors="an upgrade came first").ready() as server:
        server.full_strength(2)
        chance = random.Random(19)
        orders = [signal.SIGTTIN] * 12 + [signal.SIGTTOU] * 15
        orders += [signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP]
        chance.shuffle(orders)
        with Clients(server, 2, keep_alive=True) as kept:
            for number in orders:
                server.kill(number)
                time.sleep(0.005)  # prefork: ok (or signals of a kind become one)
            # A reload brings back what is configured, and what comes behind it counts from there.
            settle(server)
            newest = generation(server) + 1
            server.kill(signal.SIGHUP)
            server.ready(newest)
            eventually(lambda: len(server.processes()) == 4, "one generation, two workers")
            for times in range(1, 6):
                server.kill(signal.SIGTTOU)
                eventually(lambda times=times: said_by(server, newest, "SIGTTOU: 1 workers") >= times, "it is obeyed")
            eventually(lambda: len(server.processes()) == 3, "one worker is left")
            kept.some_more()
        assert kept.failures == [] and kept.connections == 2
        # Who has just left counts as gone before the Arbiter has come to see it off.
        eventually(lambda: zombies(server) == [], "each is seen off")
        assert "Traceback" not in server.log


def test_winch_while_a_generation_boots_holds_up_neither_it_nor_the_next_hup() -> None:
    with serve("--workers", "2").ready() as server:
        server.kill(signal.SIGHUP)
        server.wait_for(r"gen=2 pid=\d+ started")
        server.kill(signal.SIGWINCH)
        server.wait_for(r"arbiter gen=2 pid=\d+ ready", patience=4)
        eventually(lambda: len(server.processes()) == 2, "the last order counts: all workers have retired")
        server.kill(signal.SIGHUP)
        server.ready(3)
        assert server.get()[0] == 200


def generation(server: Server) -> int:
    """The newest that has been started."""
    found = [int(match[1]) for line in list(server.lines) if (match := re.search(r"gen=(\d+) pid=\d+ started$", line))]
    return max([1, *found])


def is_quiet(server: Server) -> bool:
    """The newest generation is ready, and of the others nothing is left."""
    try:
        parents = {process.ppid() for process in family(server)[1:]}
    except psutil.NoSuchProcess:
        return False
    return server.count(rf"arbiter gen={generation(server)} pid=\d+ ready") == 1 and len(parents) <= 2


def settle(server: Server) -> None:
    """Wait until nothing is on its way: between two generations there is a moment in which all looks done."""
    number, quiet = 0, 0
    while quiet < 20:
        eventually(lambda: is_quiet(server), "no generation boots or leaves")
        quiet = quiet + 1 if generation(server) == number else 0
        number = generation(server)
        time.sleep(0.05)  # prefork: ok (nothing happens, which no event tells)


def said_by(server: Server, number: int, words: str) -> int:
    return server.count(rf"\[{server.arbiter(number)}\] \[INFO\] {words}")


def test_signals_a_thousand_times_a_second_break_no_answer_in_two() -> None:
    body = os.urandom(1 << 20)
    expected = b"".join(bytes([65 + n % 26]) * 10_007 for n in range(200))
    with serve("--workers", "2").ready() as server:
        targets = [*server.full_strength(2), server.arbiter(), server.pid]
        ended = threading.Event()

        def drum() -> None:
            numbers = (signal.SIGWINCH, signal.SIGTTIN)  # what workers and the Arbiter note, and nobody obeys there
            while not ended.wait(0.001):
                for pid in targets[:3]:
                    os.kill(pid, random.choice(numbers))
                os.kill(targets[3], signal.SIGCHLD)

        thread = threading.Thread(target=drum)
        thread.start()
        try:
            for _ in range(10):
                with server.connect() as sock:
                    # Slowly taken, so that it is written in many pieces.
                    send(sock, "/large", "Connection: close")
                    assert read_answer(sock)[2] == expected
                with server.connect() as sock:
                    head = (
                        f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                    )
                    sock.sendall(head.encode() + body)
                    assert json.loads(read_answer(sock)[2])["size"] == len(body)
        finally:
            ended.set()
            thread.join()
        assert server.workers() == targets[:2]


def test_system_calls_that_are_cut_short_lose_no_byte() -> None:
    expected = b"".join(bytes([65 + n % 26]) * 10_007 for n in range(200))
    with serve("--workers", "1").ready() as server:
        (worker,) = server.full_strength(1)
        for calls, how in (("epoll_wait", "error=EINTR:when=1+2"), ("sendto,sendmsg", "error=EAGAIN:when=2+3")):
            with injected(worker, calls, how), server.connect() as sock:
                send(sock, "/large", "Connection: close")
                assert read_answer(sock)[2] == expected
        assert server.workers() == [worker]


def test_a_hup_to_the_whole_group_reloads_once() -> None:
    with serve("--workers", "2").ready() as server:
        server.full_strength(2)
        with Clients(server, 1) as fresh, Clients(server, 1, keep_alive=True) as kept:
            os.killpg(server.pid, signal.SIGHUP)
            server.ready(2)
            server.wait_for("arbiter gen=1 leaves: retired")
            eventually(lambda: is_quiet(server), "no generation boots or leaves")
            fresh.some_more()
            kept.some_more()
        assert fresh.failures == [] and kept.failures == [] and kept.connections == 1
        assert server.count(r"gen=\d pid=\d+ started") == 1
        assert "Traceback" not in server.log


def test_a_hup_to_the_whole_group_meets_a_generation_that_boots() -> None:
    """Which has no handlers yet, and is ended by it: no failure, as another reload is wanted now."""
    with serve("--workers", "1").ready() as server:
        server.kill(signal.SIGHUP)
        server.wait_for(r"gen=2 pid=\d+ started")
        os.killpg(server.pid, signal.SIGHUP)
        server.ready(3)
        assert server.count(r"gen=2 pid=\d+ was ended by SIGHUP and is started anew") <= 1
        server.wait_for("arbiter gen=1 leaves: retired")
        assert server.get()[0] == 200


AT_A_TERMINAL = (
    "import fcntl, os, signal, sys, termios;"
    "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0); os.close(int(sys.argv[1]));"
    "signal.signal(signal.SIGHUP, getattr(signal, sys.argv[2])); os.execv(sys.argv[3], sys.argv[3:])"
)


@pytest.mark.parametrize(("hup", "stops"), [("SIG_DFL", True), ("SIG_IGN", False)], ids=["", "nohup"])
def test_a_terminal_that_is_closed_stops_what_was_started_at_it(hup: str, stops: bool) -> None:
    """The server leads the session of a terminal, whose end the kernel tells it."""
    ours, theirs = os.openpty()
    prefix = (sys.executable, "-c", AT_A_TERMINAL, str(theirs), hup)
    try:
        with serve("--workers", "1", prefix=prefix, pass_fds=(theirs,)).ready() as server:
            os.close(theirs)
            server.kill(signal.SIGHUP)  # while it is there, that is a reload as anywhere
            server.ready(2)
            server.wait_for("arbiter gen=1 leaves: retired")
            server.kill(signal.SIGUSR2)
            server.ready(3)
            server.wait_for("arbiter gen=2 leaves: retired")
            os.close(ours)
            if stops:
                assert server.wait() == 0
                server.wait_for("SIGHUP, the terminal was closed: stopping")
            else:
                server.ready(4)
                server.wait_for("arbiter gen=3 leaves: retired")
                assert server.get()[0] == 200
    finally:
        for fd in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(fd)


def test_a_hup_long_after_the_terminal_was_closed_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    at, none, unwatched = (Terminal(watched, os.ttyname(theirs)) for watched in (True, True, False))
    os.close(none.fd)
    none.fd = -1
    try:
        assert not at.was_closed
        os.close(ours)
        assert at.was_closed and at.fd == -1
        assert not none.was_closed and not unwatched.was_closed
        monkeypatch.setattr(terminal, "JUST_NOW", 0.0)
        assert not at.was_closed
    finally:
        os.close(theirs)


def test_idle_connections_do_not_hold_up_the_stop() -> None:
    with serve("--workers", "2").ready() as server:
        idle = [server.connect() for _ in range(6)]
        for sock in idle[:4]:  # the others have not said a word
            send(sock, "/")
            assert read_answer(sock)[0] == 200
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 1.5
        for sock in idle:
            assert died(sock)


def test_a_half_read_head_does_not_hold_up_the_stop() -> None:
    with serve("--workers", "2").ready() as server:
        for _ in range(4):
            server.connect().sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Half")
        server.get()
        began = time.monotonic()
        assert server.stop() == 0
        took = time.monotonic() - began
    assert took < 1.5


def test_three_upgrades_leak_no_descriptor_and_the_folder_may_be_gone(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with serve("--workers", "1", folder=folder).ready() as server:
        supervisor = psutil.Process(server.pid)
        for generation in range(2, 5):
            server.kill(signal.SIGUSR2)
            server.ready(generation)
            server.wait_for(f"arbiter gen={generation - 1} leaves: retired")
            eventually(lambda: len(family(server)) == 3, "one generation is left")
            if generation == 2:
                eventually(lambda: server.count("gen=1 .* gone"), "its worker is gone")
                settle(server)  # what the generation said while it booted is read to its end
                before = supervisor.num_fds()
        eventually(lambda: supervisor.num_fds() <= before, "no descriptor is left over")
        folder.rmdir()
        server.kill(signal.SIGUSR2)
        server.ready(5)
        assert server.get()[0] == 200
        assert server.stop() == 0


def test_without_a_ready_worker_systemd_is_never_told_so(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, free_port() as port:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        environment = {
            "TEST_APPLICATION": "tests.site.broken_import.application",
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
        }
        with serve(bind=f"127.0.0.1:{port}", environment=environment, errors="before it was ready") as server:
            assert server.wait(PATIENCE) == 1
        said = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                said += systemd.recv(4096) + b"\n"
        assert b"READY=1" not in said
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def test_sockets_that_are_none_or_not_ours_are_not_taken() -> None:
    """LISTEN_FDS with the PID of somebody else; and with a descriptor that is no socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ.update(LISTEN_PID=sys.argv[2] or str(os.getpid()), LISTEN_FDS='1');"
            "os.execv(sys.argv[3], sys.argv[3:])"
        )
        fd = listener.fileno()
        other = (sys.executable, "-c", script, str(fd), "1")
        with free_port() as port:
            pass
        environment = {"PORT": str(port)}
        theirs = stack.enter_context(
            serve("--workers", "1", bind=None, prefix=other, pass_fds=(fd,), environment=environment)
        )
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        prefix = (sys.executable, "-c", script, str(null), "")
        none = stack.enter_context(serve("--workers", "1", bind=None, prefix=prefix, pass_fds=(null,)))
        assert none.wait() == 1 and none.count("no listening socket was passed under that number") == 1
        theirs.ready()
        assert theirs.port == port and theirs.get()[0] == 200


def test_both_families_share_a_port() -> None:
    with free_port() as port:
        pass
    with serve("--workers", "1", "--bind", f"0.0.0.0:{port}", "--bind", f"[::]:{port}", bind=None).ready() as server:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=PATIENCE) as sock:
                send(sock, "/", "Connection: close")
                assert read_answer(sock)[0] == 200
        assert server.stop() == 0
