"""The server that tests use, in the middle of a test run: this one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from demo_project.board.models import Notice
from django_prefork.config import ConfigError
from django_prefork.log import AccessLog
from django_prefork.scoreboard import State
from django_prefork.test import PreforkServer, ServerError
from tests.harness import PATIENCE, eventually


@pytest.fixture
def server(transactional_db: None) -> Iterator[PreforkServer]:
    server = PreforkServer("127.0.0.1")
    server.start()
    yield server
    server.stop()


def get(server: PreforkServer, path: str) -> requests.Response:
    return requests.get(server + path, timeout=PATIENCE)


def processes(server: PreforkServer) -> list[psutil.Process]:
    arbiter = psutil.Process(server._pid)
    return [arbiter, *arbiter.children()]


def test_the_fixture_serves_project_and_static_files(prefork_server: PreforkServer) -> None:
    Notice.objects.create(title="Seen from outside", body="Text.")
    assert "Seen from outside" in get(prefork_server, "/").text
    assert get(prefork_server, "/static/board/style.css").headers["Content-Type"] == "text/css"


def test_uploads_are_served_where_media_url_says(transactional_db: None, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("uploaded")
    with override_settings(MEDIA_ROOT=tmp_path, MEDIA_URL="/media/"):
        server = PreforkServer()
        server.start()
    try:
        assert get(server, "/media/a.txt").text == "uploaded"
        assert get(server, "/media/b.txt").status_code == 404
    finally:
        server.stop()


def test_a_report_has_the_line_of_each_request_that_was_answered(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccessLog, "flush", lambda self: None)  # as if the worker never came to it
    server = PreforkServer()
    server.start()
    try:
        assert get(server, "/whoami").status_code == 200
        assert "GET /whoami 200" in server.report()
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["/whoami", "/export.csv"])
def test_a_line_that_comes_late_is_not_the_next_tests(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    put_down = AccessLog.log

    def late(self: AccessLog, *args: Any) -> None:
        time.sleep(0.3)  # prefork: ok - longer than new workers take to come
        put_down(self, *args)

    monkeypatch.setattr(AccessLog, "log", late)
    server = PreforkServer()
    server.start()
    try:
        assert get(server, path).status_code == 200
        server.forget()
        server.begin()
        output = server._output
        assert output is not None
        eventually(lambda: f"GET {path} 200".encode() in os.pread(output.fileno(), 100_000, 0), "it is put down")
        assert path not in server.said()
    finally:
        server.stop()


def test_a_test_does_not_begin_while_a_worker_of_the_last_one_could_take_its_request(transactional_db: None) -> None:
    """Told to leave, it may be kept from hearing it, and what it has in memory is the last test's."""
    server = PreforkServer("127.0.0.1", options={"WORKERS": 1})
    server.start()
    try:
        board = server._board
        assert board is not None
        server.forget()
        (old,) = psutil.Process(server._pid).children()
        old.suspend()
        resumed = False

        def resume() -> None:
            nonlocal resumed
            try:
                ready = [State.IDLE, State.IDLE]
                eventually(lambda: [reading.state for reading in board.occupied()] == ready, "there is its successor")
                time.sleep(0.2)  # prefork: ok - what must not happen has no event
            finally:
                resumed = True
                old.resume()

        with ThreadPoolExecutor(1) as beside:
            resuming = beside.submit(resume)
            server.begin()
            assert resumed
            resuming.result()
    finally:
        server.stop()


def test_start_and_stop_leave_nothing(transactional_db: None) -> None:
    before = set(os.listdir("/dev/fd"))
    children = psutil.Process().children(recursive=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for _ in range(3):
        server = PreforkServer()
        server.start()
        assert get(server, "/whoami").status_code == 200
        server.stop()
        with pytest.raises(requests.ConnectionError):
            get(server, "/whoami")
    assert set(os.listdir("/dev/fd")) == before
    assert psutil.Process().children(recursive=True) == children
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_options_of_the_project_hold_but_for_those_of_production(transactional_db: None, tmp_path: Path) -> None:
    production = {
        "WORKERS": 9,
        "HEALTH_PATH": "/-/health",
        "PID_FILE": str(tmp_path / "pid"),
        "BIND": ["unix:/nowhere/at.all"],
        "STATUS_BIND": f"unix:{tmp_path}/status",
        "DRAIN_DELAY": 60,
    }
    with override_settings(PREFORK=production):
        server = PreforkServer(options={"WORKERS": 1})
        server.start()
    try:
        assert get(server, "/-/health").text == "ready\n"
        assert len(processes(server)) == 2
        assert not list(tmp_path.iterdir())
    finally:
        server.stop()


def test_an_option_that_makes_no_sense_here_is_refused() -> None:
    with pytest.raises(ConfigError, match="no BIND"):
        PreforkServer(options={"BIND": "8000"}).start()


def test_an_open_transaction_is_refused(db: None) -> None:
    with pytest.raises(ImproperlyConfigured, match="A transaction is open on 'default'"):
        PreforkServer().start()


def test_a_project_that_does_not_load_says_why(transactional_db: None) -> None:
    before = set(os.listdir("/dev/fd"))
    with (
        override_settings(WSGI_APPLICATION="tests.site.broken_import.application"),
        pytest.raises(ServerError, match=r"(?s)ended before it was ready.*Traceback"),
    ):
        PreforkServer().start()
    assert set(os.listdir("/dev/fd")) == before


def test_an_end_that_nobody_asked_for_is_noticed(server: PreforkServer) -> None:
    server.check()
    everybody = processes(server)
    psutil.Process(server._pid).kill()
    eventually(lambda: everybody[0].status() == psutil.STATUS_ZOMBIE, "it has ended")
    with pytest.raises(ServerError, match="has ended"):
        server.check()
    server.stop()
    eventually(lambda: not any(process.is_running() for process in everybody), "its workers are gone as well")


def test_a_worker_that_is_lost_is_replaced_and_told_of(
    server: PreforkServer, capsys: pytest.CaptureFixture[str]
) -> None:
    arbiter, first, _ = processes(server)
    first.kill()
    eventually(lambda: f"pid={first.pid} was ended by SIGKILL" in server.said(), "it is told")
    eventually(lambda: len([c for c in arbiter.children() if c.status() != psutil.STATUS_ZOMBIE]) == 2, "two again")
    server.stop()
    # No test had it in its report.
    assert f"pid={first.pid} was ended by SIGKILL" in capsys.readouterr().err


def test_a_request_that_does_not_end_is_ended(transactional_db: None, capsys: pytest.CaptureFixture[str]) -> None:
    server = PreforkServer(options={"GRACEFUL_TIMEOUT": "200ms"})
    server.start()
    asked = subprocess.Popen(
        [sys.executable, "-c", f"import urllib.request; urllib.request.urlopen('{server}/report/?seconds=60')"],
        stderr=subprocess.DEVNULL,
    )
    everybody = processes(server)
    eventually(lambda: any(reading.request for reading in server._board.occupied()), "the request runs")  # type: ignore[union-attr]
    server.stop()
    assert not any(process.is_running() for process in everybody)
    assert "GET /report/?seconds=60" in capsys.readouterr().err
    assert asked.wait(PATIENCE)


def test_what_the_test_run_forks_does_not_keep_it_alive(server: PreforkServer) -> None:
    everybody = processes(server)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        server.stop()
        assert not any(process.is_running() for process in everybody)
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def test_it_keeps_no_pipe_of_the_test_run_open(transactional_db: None) -> None:
    read, write = os.pipe()
    server = PreforkServer()
    server.start()
    try:
        os.close(write)
        assert select.select([read], [], [], PATIENCE)[0], "somebody else holds the other end"
        assert os.read(read, 1) == b""
    finally:
        server.stop()
        os.close(read)


def test_two_servers_beside_each_other(server: PreforkServer) -> None:
    other = PreforkServer(options={"WORKERS": 1})
    other.start()
    assert get(other, "/whoami").json()["ppid"] != get(server, "/whoami").json()["ppid"]
    other.stop()
    assert get(server, "/whoami").status_code == 200


def test_connections_of_the_test_go_on(server: PreforkServer) -> None:
    Notice.objects.create(title="One", body="Text.")
    with CaptureQueriesContext(connection) as queries:
        assert Notice.objects.count() == 1
    assert len(queries) == 1
    assert set(connections) == {"default"}
