"""HUP: new code, same PID; and USR2."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.harness import Clients, Server, eventually

SETTINGS = """
    import os
    SECRET_KEY = "x"
    ALLOWED_HOSTS = ["*"]
    INSTALLED_APPS = ["django_prefork"]
    ROOT_URLCONF = "site_urls"
    PREFORK = {"WORKERS": 2}
    ANSWER = "one"
"""

URLS = """
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path
    urlpatterns = [path("", lambda request: HttpResponse(settings.ANSWER))]
"""

MANAGE = """
    import os, sys
    sys.path.insert(0, os.getcwd())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""


class Project:
    """A project in a folder of its own, whose files a test changes while it is served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.write("site_settings.py", SETTINGS)
        self.write("site_urls.py", URLS)
        self.write("manage.py", MANAGE)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def answer(self, word: str, **more: object) -> None:
        text = SETTINGS.replace('"one"', repr(word))
        for key, value in more.items():
            text += f"    {key} = {value!r}\n"
        self.write("site_settings.py", text)

    def serve(self, *arguments: str, folder: Path | None = None, errors: str = "") -> Server:
        command = [sys.executable, "-B", "manage.py", "runprefork"]
        environment = {"DJANGO_SETTINGS_MODULE": "site_settings", "PWD": str(folder or self.folder)}
        return Server(
            *arguments, command=command, folder=folder or self.folder, environment=environment, errors=errors
        ).ready()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    yield Project(tmp_path / "project")


def hup(server: Server, generation: int) -> None:
    server.kill(signal.SIGHUP)
    server.ready(generation)
    server.wait_for(rf"arbiter gen={generation - 1} leaves: retired")


def test_hup_serves_new_code_under_the_same_pid_and_fails_no_request(project: Project) -> None:
    with project.serve() as server:
        pid = server.pid
        assert server.get() == (200, b"one")
        with Clients(server, 2) as fresh, Clients(server, 2, keep_alive=True) as kept:
            project.answer("two")
            hup(server, 2)
            fresh.some_more()
            kept.some_more()
        assert server.get() == (200, b"two") and server.pid == pid
        assert fresh.failures == [] and kept.failures == []
        assert {body for _, body in fresh.answers} == {b"one", b"two"}
        # No keep-alive connection was closed: they moved to the new generation's workers.
        assert kept.connections == 2
        assert {body for _, body in kept.answers} == {b"one", b"two"}
        assert psutil.Process(pid).cmdline()[1:3] == ["-I", "-S"]
        assert len(server.workers(2)) == 2 and not server.workers(1)


#: Each worker of the second generation waits for somebody who opens the pipe.
HELD = """
    from django_prefork.signals import post_fork

    def held(generation, **_):
        if generation == 2:
            open("may-go").close()

    post_fork.connect(held)
"""


def test_capacity_never_drops_below_workers_during_a_reload(project: Project) -> None:
    project.write("site_settings.py", SETTINGS + HELD)
    may_go = project.folder / "may-go"
    os.mkfifo(may_go)
    with project.serve("--workers", "3") as server:
        server.kill(signal.SIGHUP)
        for ready in (1, 2, 3):
            may_go.open("w").close()
            if ready < 3:
                server.wait_for(r"worker=\d gen=1 .* retires: gives way", ready)
        server.wait_for("arbiter gen=1 leaves: retired")
    ready = retired = 0
    for line in server.lines:
        if re.search("worker=.* gen=2 .* ready", line):
            ready += 1
        if re.search("worker=.* gen=1 .* retires: gives way", line):
            retired += 1
            assert retired <= ready, server.log
    assert ready == 3 and retired >= 2  # the last one may go with its generation


def test_a_worker_that_hears_of_its_retirement_before_its_arbiter_was_meant_to_go() -> None:
    """The Arbiter is at the end of a killed one, until another has left as well."""
    with Server("--workers", "2", application="dawdles.application", errors="was ended by SIGKILL").ready() as server:
        first, second = server.full_strength(2)
        server.kill(signal.SIGKILL, first)
        server.wait_for(f"pid={first} was ended by SIGKILL")
        server.kill(signal.SIGHUP)
        server.wait_for("arbiter gen=1 leaves: retired")
        server.wait_for(rf"worker=\d gen=1 pid={second} gone$")


BROKEN = {
    "a syntax error in the settings": ("site_settings.py", "ANSWER = ", "SyntaxError"),
    "an import error in the urls": ("site_urls.py", "import no_such_module", "no_such_module"),
    "no settings": ("site_settings.py", None, "site_settings"),
    "a failing check": (
        "site_settings.py",
        SETTINGS
        + """
    from django.core import checks
    @checks.register()
    def bad(app_configs, **kwargs):
        return [checks.Error("this check fails", id="x.E001")]
    """,
        "this check fails",
    ),
    "a bad option": ("site_settings.py", SETTINGS + "    PREFORK = {'WORKRES': 3}\n", "WORKERS"),
    "workers that die at boot": (
        "site_urls.py",
        """
    import os
    from django_prefork.signals import post_fork
    post_fork.connect(lambda **_: os._exit(7), weak=False)
    urlpatterns = []
    """,
        "did not start",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_code_that_does_not_boot_changes_nothing(project: Project, what: str) -> None:
    name, text, says = BROKEN[what]
    with project.serve(errors="reload failed|exited with status|next worker|server's|failed") as server:
        arbiter = server.arbiter()
        with Clients(server, 2) as fresh, Clients(server, 2, keep_alive=True) as kept:
            good = (project.folder / name).read_text()
            if text is None:
                (project.folder / name).unlink()
            else:
                project.write(name, text)
            server.kill(signal.SIGHUP)
            server.wait_for("reload failed, gen=2")
            eventually(lambda: len(server.processes()) == 4, "only the old generation is left")
            fresh.some_more()
            kept.some_more()
            assert fresh.failures == [] and kept.failures == []
            assert set(fresh.answers + kept.answers) == {(200, b"one")}
            assert server.count(says) >= 1
            assert server.arbiter() == arbiter and len(server.workers()) == 2
            # The next good one works.
            (project.folder / name).write_text(good)
            project.answer("three")
            server.kill(signal.SIGHUP)
            server.wait_for(r"arbiter gen=3 pid=\d+ ready")
            server.wait_for("arbiter gen=1 leaves: retired")
            assert server.get() == (200, b"three")
        assert fresh.failures == [] and kept.failures == []


def test_code_that_hangs_at_boot_is_ended_after_boot_timeout(project: Project) -> None:
    with project.serve("--boot-timeout", "1", errors="reload failed") as server:
        project.write("site_urls.py", "import time; time.sleep(60)" + "\n" + textwrap.dedent(URLS))
        server.kill(signal.SIGHUP)
        server.wait_for("reload failed, gen=2 was not ready after 1 s")
        eventually(lambda: len(server.processes()) == 4, "only the old generation is left")
        assert server.get() == (200, b"one")


def test_options_are_read_again(project: Project) -> None:
    with project.serve() as server:
        assert len(server.full_strength(2)) == 2
        project.answer("two", PREFORK={"WORKERS": 4, "TIMEOUT": 77})
        hup(server, 2)
        assert len(server.full_strength(4, 2)) == 4
        project.answer("three", PREFORK={"WORKERS": 1})
        hup(server, 3)
        assert len(server.full_strength(1, 3)) == 1


def test_binds_change_and_those_that_stay_are_never_closed(project: Project, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    project.answer("one", PREFORK={"WORKERS": 1, "BIND": [f"unix:{first}"]})
    with project.serve("--bind", "127.0.0.1:0") as server:
        # A flag beats settings: only the port.
        assert not first.exists() and server.get()[0] == 200
    with Server(
        command=[sys.executable, "-B", "manage.py", "runprefork"],
        bind=None,
        folder=project.folder,
        environment={"DJANGO_SETTINGS_MODULE": "site_settings", "PWD": str(project.folder)},
    ).ready() as server:
        inode = first.stat().st_ino
        project.answer("two", PREFORK={"WORKERS": 1, "BIND": [f"unix:{first}", f"unix:{second}"]})
        hup(server, 2)
        assert first.stat().st_ino == inode
        assert ask(first) == ask(second) == b"two"
        project.answer("three", PREFORK={"WORKERS": 1, "BIND": [f"unix:{second}"]})
        hup(server, 3)
        assert ask(second) == b"three" and not first.exists()
        hup(server, 4)
        assert server.stop() == 0
    assert not second.exists()


def ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return sock.makefile("rb").read().rpartition(b"\r\n\r\n")[2]


def test_a_symlinked_release_is_followed(tmp_path: Path) -> None:
    old, new, current = Project(tmp_path / "old"), Project(tmp_path / "new"), tmp_path / "current"
    new.answer("two")
    current.symlink_to("old")
    with old.serve(folder=current) as server:
        assert server.get() == (200, b"one")
        current.unlink()
        current.symlink_to("new")
        hup(server, 2)
        assert server.get() == (200, b"two")


def test_a_storm_of_hups_is_few_reloads(project: Project) -> None:
    with project.serve() as server:
        with Clients(server, 2) as clients:
            for _ in range(50):
                server.kill(signal.SIGHUP)
            server.wait_for(r"arbiter gen=2 pid=\d+ ready")
            eventually(lambda: len(server.processes()) == 4, "one generation is left")
            clients.some_more()
        assert clients.failures == []
        assert server.count(r"arbiter gen=\d pid=\d+ ready") <= 3


def test_a_term_during_a_reload_stops_the_server(project: Project) -> None:
    with project.serve() as server:
        project.write("site_urls.py", "import time; time.sleep(60)" + "\n" + textwrap.dedent(URLS))
        server.kill(signal.SIGHUP)
        server.wait_for("gen=2 pid=.* started")
        assert server.stop() == 0


def test_a_hundred_reloads_leave_no_descriptor_and_no_memory_behind(project: Project) -> None:
    """Ten here; `python -m tests.soak reload` does a hundred under load."""
    with project.serve("--workers", "1") as server:
        hup(server, 2)
        eventually(lambda: len(server.processes()) == 3, "one generation is left")
        supervisor = psutil.Process(server.pid)
        before = supervisor.num_fds(), supervisor.memory_info().rss
        for generation in range(3, 13):
            hup(server, generation)
        eventually(lambda: len(server.processes()) == 3, "one generation is left")
        eventually(lambda: supervisor.num_fds() <= before[0], "its descriptors are back")
        assert supervisor.memory_info().rss < before[1] * 1.1


def test_usr2_becomes_a_new_supervisor_under_the_same_pid(project: Project) -> None:
    with project.serve() as server:
        began = psutil.Process(server.pid).create_time()
        with Clients(server, 2) as clients:
            project.answer("two")
            server.kill(signal.SIGUSR2)
            server.wait_for("SIGUSR2: .* takes over")
            server.ready(2)
            server.wait_for("arbiter gen=1 leaves: retired")
            clients.some_more()
        assert clients.failures == []
        assert server.get() == (200, b"two")
        assert psutil.Process(server.pid).create_time() == began
        hup(server, 3)
        assert server.stop() == 0


def test_usr2_with_a_broken_interpreter_changes_nothing(project: Project, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    command = [str(python), "-B", "manage.py", "runprefork"]
    environment = {
        "DJANGO_SETTINGS_MODULE": "site_settings",
        "PWD": str(project.folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    options = {"folder": project.folder, "environment": environment, "errors": "SIGUSR2"}
    with Server(command=command, **options).ready() as server:  # type: ignore[arg-type]
        python.unlink()
        server.kill(signal.SIGUSR2)
        server.wait_for("SIGUSR2: .*: all stays as it is")
        assert server.get() == (200, b"one")
        assert server.stop() == 0
