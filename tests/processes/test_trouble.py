"""Applications that do not import, that crash, that hang; commands that cannot work."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.harness import PATIENCE, ROOT, Clients, Server, eventually, free_port, read_answer, require_another_user


@pytest.mark.parametrize("path", ["/spin", "/regex", "/sleep?s=600"])
def test_a_hanging_request_is_named_with_its_stack_and_its_worker_killed(path: str) -> None:
    arguments = ("--workers", "2", "--timeout", "1", "--timeout-grace", "0")
    with Server(*arguments, application="work", errors="serving|killed").ready() as server:
        asked = server.ask(path)
        # Others are served all the time.
        while not server.count("killed: serving"):
            assert server.get("/pid")[0] == 200
        name = path.replace("?", r"\?")
        server.wait_for(rf'worker=\d gen=1 pid=\d+ killed: serving "GET {name} HTTP/1.1" for \d\.\d s, timeout is 1 s')
        server.wait_for(r'File ".*tests/site/applications.py", line \d+ in work')
        assert asked.recv(1) == b""  # closed, and no wrong answer
        asked.close()
        server.wait_for(r"worker=\d+ gen=1 pid=\d+ ready", times=3)
        assert server.get("/pid")[0] == 200


def test_a_timeout_of_all_the_project_s_sockets_is_none_of_the_server_s() -> None:
    environment = {"TEST_APP": "tests.site.impatient"}
    options = ("--workers", "2", "--status-bind", "127.0.0.1:0")
    with Server(*options, application="work", environment=environment).ready() as server:
        slow = server.connect()
        slow.sendall(b"GET /pid HT")
        with Clients(server, 4, "/sleep?s=0.05", keep_alive=True) as clients:
            clients.some_more()
            server.kill(signal.SIGHUP)
            server.ready(2)
            clients.some_more()
        time.sleep(1.5)  # prefork: ok (workers that rest look at their doors once a second)
        slow.sendall(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(slow)[0] == 200
        assert (clients.failures, clients.connections) == ([], 4)
        assert len(server.workers(2)) == 2


def test_timers_of_the_project_s_do_not_end_the_supervisor() -> None:
    with Server("--workers", "1", environment={"TEST_APP": "tests.site.ticking"}).ready() as server:
        server.kill(signal.SIGHUP)
        server.ready(2)
        assert server.get()[0] == 200
        assert server.stop() == 0


def test_a_stopped_worker_is_continued_for_its_dump() -> None:
    arguments = ("--workers", "1", "--timeout", "1", "--timeout-grace", "0")
    server = Server(*arguments, application="work", errors="serving|killed")
    with server.ready(), server.ask("/sleep?s=600"):
        server.wait_for("sleeping")
        server.kill(signal.SIGSTOP, server.workers()[0])
        server.wait_for(r'File ".*tests/site/applications.py", line \d+ in work')


def test_timeout_0_lets_a_request_take_its_time() -> None:
    with Server("--workers", "1", "--timeout", "0", application="work").ready() as server:
        assert server.get("/sleep?s=1.5")[0] == 200


def test_an_application_that_does_not_import_ends_the_start_with_its_traceback_once() -> None:
    with Server("--workers", "2", application="broken_import.application", errors="before it was ready") as server:
        assert server.wait(5) == 1
    assert server.count("ImportError: this application does not import") == 1
    assert server.count("Traceback") <= 2  # Django's ImproperlyConfigured, and its cause


def test_workers_that_always_crash_cost_next_to_nothing() -> None:
    with Server("--workers", "2", application="crash", errors="exited with status 9") as server:
        server.wait_for(r"exited with status 9", times=4)
        before = cpu(server)
        began = time.monotonic()
        server.wait_for(r"exited with status 9", times=7)
        spent = (cpu(server) - before) / (time.monotonic() - began)
        assert spent < 0.05, f"{spent:.1%} of a CPU"
        assert server.process.poll() is None


def cpu(server: Server) -> float:
    """Seconds that the Supervisor, the Arbiter and their dead children have used."""
    total = 0.0
    for pid in (server.pid, *(child.pid for child in psutil.Process(server.pid).children())):
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
        if pid != server.pid:
            total += times.children_user + times.children_system
    return total


def test_workers_that_never_start_end_the_server() -> None:
    with Server("--workers", "1", application="never_ready", errors=".") as server:
        assert server.wait() == 1
    assert server.count("giving up") == 1


def test_an_exception_is_answered_with_500_and_logged() -> None:
    with Server("--workers", "1", application="work", errors="the application failed").ready() as server:
        assert server.get("/raise")[0] == 500
        server.wait_for("RuntimeError: as asked")
        assert server.get("/pid")[0] == 200


def test_djangos_own_errors_reach_stderr_without_debug() -> None:
    environment = {"TEST_APPLICATION": ""}
    with Server("--workers", "1", environment=environment, errors="Internal Server Error").ready() as server:
        assert server.get("/boom/")[0] == 500
        server.wait_for("RuntimeError: as asked")


# -- commands that cannot work -----------------------------------------------------------------------------------------


def fails(*arguments: str, says: str, **options: object) -> None:
    with Server(*arguments, **options) as server:  # type: ignore[arg-type]
        assert server.wait() == 1
    assert server.count("Traceback") == 0, server.log
    assert server.count(says) == 1, server.log


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        fails(bind=address, says=rf"Cannot listen on {address}: .* in use; .*\.$")


def test_no_permission_is_one_sentence(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        fails(bind="unix:/proc/x.sock", says=r"Cannot listen on unix:/proc/x.sock: .*\.$")
    else:
        fails(bind="127.0.0.1:1", says=r"no permission for that port; .*--user\.$")


def test_bad_options_are_one_sentence() -> None:
    fails("--workers", "none", says=r"--workers")
    fails("--user", "nobody-of-that-name", says="nobody-of-that-name")
    fails(environment={"PREFORK_WROKERS": "3"}, says="PREFORK_WORKERS")


def test_without_allowed_hosts_it_does_not_start() -> None:
    fails(environment={"TEST_ALLOWED_HOSTS": ""}, says="ALLOWED_HOSTS")


def test_a_unix_socket_of_a_living_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Server("--workers", "1", bind=f"unix:{path}").ready() as server:
        fails(bind=f"unix:{path}", says="another server listens there")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
    assert not path.exists()


def test_a_stale_unix_socket_and_a_stale_pid_file_are_taken_over(tmp_path: Path) -> None:
    path, pid_file = tmp_path / "s", tmp_path / "pid"
    arguments = ("--workers", "1", "--pid-file", str(pid_file))
    with Server(*arguments, bind=f"unix:{path}", errors="the supervisor is gone").ready() as server:
        assert pid_file.read_text() == f"{server.pid}\n"
        server.kill(signal.SIGKILL)
        eventually(lambda: not server.processes(), "nothing is left")
    assert path.exists() and pid_file.exists()
    with Server(*arguments, bind=f"unix:{path}").ready() as server:
        assert pid_file.read_text() == f"{server.pid}\n"
        assert server.stop() == 0
    assert not path.exists() and not pid_file.exists()


def test_a_second_server_with_the_same_pid_file_does_not_start(tmp_path: Path) -> None:
    arguments = ("--workers", "1", "--pid-file", str(tmp_path / "pid"))
    with Server(*arguments).ready() as server:
        fails(*arguments, says="running already")
        assert (tmp_path / "pid").read_text() == f"{server.pid}\n"
        assert server.get()[0] == 200


def test_a_plain_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    fails(bind=f"unix:{path}", says="there is a file of that name")
    assert path.read_text() == "x"


def test_all_binds_or_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        arguments = ("--bind", f"unix:{tmp_path}/s", "--bind", taken, "--pid-file", str(tmp_path / "pid"))
        fails(*arguments, bind=None, says="in use")
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "pid").write_text("stale\n")
        fails(*arguments, bind=None, says="in use")
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]
    assert (tmp_path / "pid").read_text() == "stale\n"


# -- where it listens --------------------------------------------------------------------------------------------------


def test_it_listens_in_several_places_at_once(tmp_path: Path) -> None:
    with Server("--workers", "1", "--bind", f"unix:{tmp_path}/s", "--bind", "[::1]:0").ready() as server:
        assert server.get()[0] == 200
        server.wait_for(r"http://\[::1\]:\d+/")
        assert stat.S_ISSOCK((tmp_path / "s").stat().st_mode)


def test_port_is_honoured() -> None:
    with free_port() as port:
        pass
    with Server("--workers", "1", bind=None, environment={"PORT": str(port)}).ready() as server:
        server.wait_for(rf"http://0.0.0.0:{port}/")
        assert server.get()[0] == 200


def test_an_inherited_socket_is_served_and_not_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        with Server("--workers", "1", bind=f"fd:{fd}", pass_fds=(fd,)).ready() as server:
            assert server.get()[0] == 200
            assert server.stop() == 0
        # Still listening: the next one takes over what waits meanwhile.
        waiting = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
        waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with Server("--workers", "1", bind=f"fd:{fd}", pass_fds=(fd,)).ready():
            assert waiting.recv(100).startswith(b"HTTP/1.1 200")
        waiting.close()


def test_privileges_are_dropped_before_the_application_is_loaded() -> None:
    require_another_user()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lets nobody else in
        os.chmod(folder, 0o777)
        _serve_as_nobody(Path(folder) / "made")


def _serve_as_nobody(marker: Path) -> None:
    # An application that anybody may read, wherever this checkout lies.
    (marker.parent / "marks_its_import.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(marker)!r}).touch()\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
    )
    environment = {
        "TEST_APPLICATION": "marks_its_import.application",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(marker.parent))),
    }
    with Server("--workers", "1", "--user", "nobody", "--skip-checks", environment=environment).ready() as server:
        assert server.get()[0] == 200
        owner = psutil.Process(server.workers()[0]).uids().real
        assert owner != 0 and marker.stat().st_uid == owner


def test_log_files_are_reopened_on_usr1(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Server("--workers", "2", "--access-log", str(log)).ready() as server:
        server.get("/first")
        eventually(lambda: "/first" in log.read_text(), "the first line")
        log.rename(tmp_path / "old.log")
        server.kill(signal.SIGUSR1)
        eventually(log.exists, "the file is made anew")

        def asked() -> bool:
            server.get("/second")
            return "/second" in log.read_text()

        eventually(asked, "a line in the new file")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_answered_is_in_the_log_while_the_next_request_takes_its_time(tmp_path: Path, workers: str) -> None:
    """Both came at once: the worker does not come back to its loop between them."""
    log = tmp_path / "access.log"
    arguments = ("--workers", workers, "--access-log", str(log), "--access-log-format", "{target}")
    with (
        Server(
            *arguments, "--graceful-timeout", "100ms", application="work", errors="the server stops"
        ).ready() as server,
        server.connect() as client,
    ):
        client.sendall(b"GET /pid HTTP/1.1\r\nHost: h\r\n\r\nGET /sleep?s=30 HTTP/1.1\r\nHost: h\r\n\r\n")
        server.wait_for("sleeping")
        eventually(lambda: log.read_text() == "/pid\n", "the line of the first one")


def test_what_was_answered_is_in_the_log_when_the_next_request_ends_the_worker(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    arguments = ("--workers", "1", "--access-log", str(log), "--access-log-format", "{target}")
    with Server(*arguments, application="work", errors="exited with").ready() as server, server.connect() as client:
        client.sendall(b"GET /pid HTTP/1.1\r\nHost: h\r\n\r\nGET /exit?status=3 HTTP/1.1\r\nHost: h\r\n\r\n")
        server.wait_for("exited with status 3")
        assert log.read_text() == "/pid\n"
        server.wait_for("ready", times=3)
        server.get("/pid?again")
        eventually(lambda: log.read_text() == "/pid\n/pid?again\n", "the successor's line")


def test_lines_that_wait_for_more_are_in_the_log_when_nothing_more_comes(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    arguments = ("--workers", "1", "--access-log", str(log), "--access-log-format", "{target}")
    with Server(*arguments, application="work").ready() as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(8)]
        for turn in range(20):
            for number, client in enumerate(clients):
                client.sendall(b"GET /pid?%d.%d HTTP/1.1\r\nHost: h\r\n\r\n" % (number, turn))
            for client in clients:
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        wanted = sorted(f"/pid?{number}.{turn}" for number in range(8) for turn in range(20))
        eventually(lambda: sorted(log.read_text().splitlines()) == wanted, "each line, once")


def test_requests_at_once_are_logged_a_line_each(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Server(
        "--workers", "3", "--access-log", str(log), "--access-log-format", "{method} {path} {status}"
    ) as server:
        server.ready()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: [server.get(f"/{n}/{i}") for i in range(20)], range(4)))
        server.stop()
    lines = log.read_text().splitlines()
    assert sorted(lines) == sorted(f"GET /{n}/{i} 200" for n in range(4) for i in range(20))
