"""`python -m django_prefork`: `manage.py runprefork`, but that with `--reload` it survives more."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from django_prefork import config
from django_prefork.arbiter.listeners import ListenError
from django_prefork.management import first_start
from django_prefork.management.commands import runprefork
from tests.harness import PATIENCE, ROOT, Server, eventually, read_answer
from tests.processes.test_autoreload import BROKEN, FILES, PYTHON, Site, becomes

MODULE = [*PYTHON, "-m", "django_prefork"]
SETTINGS, MANAGE, VIEWS = (textwrap.dedent(FILES[name]) for name in ("site_settings.py", "manage.py", "board/views.py"))
WAITS = "gen=1 exited with status 1: waiting for a change"


class OwnSite(Site):
    """Started by `python -m django_prefork`, on a unix socket that can be asked before anybody says where it serves."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.socket = folder.with_name("web.sock")

    def command(self, *arguments: str, bind: str | None = "", errors: str = BROKEN, **more: Any) -> Server:
        environment = {
            "PWD": str(self.folder),
            "DJANGO_SETTINGS_MODULE": "site_settings",
            **more.pop("environment", {}),
        }
        return Server(
            *arguments,
            command=[*MODULE],
            bind=f"unix:{self.socket}" if bind == "" else bind,
            folder=self.folder,
            environment=environment,
            errors=errors,
            **more,
        )

    def ask(self, path: str = "/code") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.socket))
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return sock

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MODULE, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "site_settings", **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[OwnSite]:
    yield OwnSite(tmp_path / "site")


APP_BEFORE = SETTINGS.replace('["django_prefork"', '["before", "django_prefork"')
# What is broken: the file, its text, and what is said of it.
BREAKS = {
    "import": ("site_settings.py", "import no_such_module", "^ModuleNotFoundError: .*no_such_module"),
    "syntax": ("site_settings.py", "SECRET_KEY = ", "^SyntaxError: "),
    "name": ("site_settings.py", SETTINGS + "\nNO_SUCH_NAME", "^NameError: "),
    "exit": ("site_settings.py", "import sys\nsys.exit('SECRET_KEY is missing')", "^SECRET_KEY is missing$"),
    "improper": (
        "site_settings.py",
        "from django.core.exceptions import ImproperlyConfigured\nraise ImproperlyConfigured('no key')",
        "ImproperlyConfigured: no key$",
    ),
    "not installed": (
        "site_settings.py",
        SETTINGS.replace('"django_prefork", ', ""),
        '^Add "django_prefork" to INSTALLED_APPS in your settings.$',
    ),
    "app before": ("before/__init__.py", "1 / 0", "^ZeroDivisionError: "),
    "app behind": ("board/models.py", "1 / 0", "^ZeroDivisionError: "),
    "manage.py": ("manage.py", "def main(:", "^SyntaxError: "),
}


@pytest.mark.parametrize("what", BREAKS)
def test_whatever_fails_at_first_is_shown_once_and_waits_for_a_change(site: OwnSite, what: str) -> None:
    name, text, says = BREAKS[what]
    if what == "app before":
        site.write("site_settings.py", APP_BEFORE)
    good = FILES.get(name, "")
    site.write(name, text)
    with site.command("--reload", "--workers", "2") as server:
        server.wait_for(WAITS)
        with site.ask() as waiting:
            site.write(name, good)
            assert read_answer(waiting)[2] == b"one"
        server.wait_for("Serving at unix:")
        assert server.count(says) == 1 and server.count(WAITS) == 1
        assert server.count("^Traceback") <= 2, "Django's own KeyError may stand above it"
        # And from here on as ever.
        site.write("site_settings.py", "SECRET_KEY = ")
        server.wait_for("waiting for a change", times=2)
        with site.ask() as waiting:
            site.write("site_settings.py", SETTINGS)
            assert read_answer(waiting)[2] == b"one"


@pytest.mark.parametrize("module", ["nowhere", "deep.settings"])
def test_settings_that_are_missing_may_appear(site: OwnSite, module: str) -> None:
    (site.folder / "manage.py").unlink()
    (site.folder / "deep").mkdir()  # without __init__.py, Python knows no file of it
    with site.command(
        "--workers", "2", environment={"DJANGO_SETTINGS_MODULE": module, "PREFORK_RELOAD": "1"}
    ) as server:
        server.wait_for(WAITS)
        with site.ask() as waiting:
            site.write(f"{module.replace('.', '/')}.py", SETTINGS)
            assert read_answer(waiting)[2] == b"one"
        assert server.count("^ModuleNotFoundError: ") == 1
        site.say("two")
        server.wait_for(r"arbiter gen=3 pid=\d+ ready")
        with site.ask() as sock:
            assert read_answer(sock)[2] == b"two"


def test_a_package_that_is_missing_may_be_installed(site: OwnSite, tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"  # not the project's own: new files in it do not count unasked
    packages.mkdir()
    site.write("site_settings.py", "import installed_late\n" + SETTINGS)
    with site.command("--reload", environment={"PYTHONPATH": f"{ROOT}:{packages}"}) as server:
        server.wait_for(WAITS)
        (packages / "unasked.py").touch()
        with site.ask() as waiting:
            (packages / "installed_late.py").touch()
            assert read_answer(waiting)[2] == b"one"
        server.wait_for(r"site-packages/installed_late\.py changed: reloading")


def test_what_is_saved_while_the_first_start_fails_is_not_missed(site: OwnSite) -> None:
    wait = "import os, time\nopen('in', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n1 / 0"
    site.write("site_settings.py", wait)
    with site.command("--reload") as server:
        eventually((site.folder / "in").exists, "settings are being loaded")
        site.write("site_settings.py", SETTINGS)
        (site.folder / "go").touch()
        server.wait_for(WAITS)
        server.wait_for("^.*site_settings.py changed: reloading")
        with site.ask() as sock:
            assert read_answer(sock)[2] == b"one"


def test_flags_and_environment_hold_until_the_settings_can_say_more(site: OwnSite) -> None:
    site.write("site_settings.py", "import no_such_module")
    with site.command("--reload", bind=None, environment={"PORT": "0"}) as server:
        server.wait_for(WAITS)
        (listener,) = (c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN)
        assert listener.laddr.ip == "0.0.0.0"
        for number, broken in enumerate(("1 / 0", "SECRET_KEY = "), 2):
            site.write("site_settings.py", broken)
            server.wait_for(f"gen={number} exited with status 1: waiting for a change")
        site.write("site_settings.py", SETTINGS + f"\nPREFORK = {{'BIND': 'unix:{site.socket}', 'WORKERS': 3}}\n")
        server.wait_for(r"Serving at unix:")
        server.wait_for(r"arbiter gen=4 pid=\d+ ready: 3 workers")
        server.wait_for(r"no longer listening on 0\.0\.0\.0:0")
        with site.ask() as sock:
            assert read_answer(sock)[2] == b"one"
        for says in ("^ModuleNotFoundError: ", "^ZeroDivisionError: ", "^SyntaxError: "):
            assert server.count(says) == 1


def test_who_has_the_default_address_keeps_nobody_from_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def launch(configuration: config.Config, *, brief: bool) -> str:
        asked.append(configuration.bind)
        if configuration.bind:
            raise ListenError("taken")
        return "a place"

    command = runprefork.Command()
    monkeypatch.setattr(runprefork.launch, "launch", launch)
    monkeypatch.setattr(runprefork, "settings", SimpleNamespace(configured=False))
    command.config = config.resolve({}, {}, None)
    assert command._launch_unless_taken(brief=True) == "a place"
    assert [len(bind) for bind in asked] == [1, 0]
    command.config = config.resolve({"bind": ["127.0.0.1:8000"]}, {}, None)
    with pytest.raises(ListenError):  # it was asked for, and is not there
        command._launch_unless_taken(brief=True)


def test_ctrl_c_ends_the_waiting_and_says_nothing(site: OwnSite) -> None:
    site.write("site_settings.py", "1 / 0")
    with site.command("--reload") as server:
        server.wait_for(WAITS)
        said = len(server.lines)
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
        assert server.lines[said:] == [] and not site.socket.exists()


def test_as_pid_1_it_waits_and_stops_on_term(site: OwnSite) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a PID namespace of its own (unshare)")
    site.write("site_settings.py", "1 / 0")
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with Server(
        "--reload",
        command=[*prefix, *MODULE],
        folder=site.folder,
        environment={"DJANGO_SETTINGS_MODULE": "site_settings"},
        errors=BROKEN,
    ) as server:
        server.wait_for(WAITS)
        (supervisor,) = psutil.Process(server.pid).children()
        assert not supervisor.children(), "it waits alone"
        supervisor.send_signal(signal.SIGHUP)
        server.wait_for("gen=2 exited with status 1: waiting for a change")
        site.write("site_settings.py", SETTINGS)
        becomes(server, "/code", b"one")
        supervisor.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_hook_of_the_projects_shows_it_and_is_still_there_afterwards(site: OwnSite) -> None:
    hook = "import sys\nsys.excepthook = lambda kind, *_: print('the hook says', kind.__name__)\n"
    site.write("manage.py", hook + "1 / 0")
    with site.command("--reload", "--workers", "1") as server:
        server.wait_for("^the hook says ZeroDivisionError$")
        server.wait_for(WAITS)
        site.write("board/views.py", "import sys\nprint('views have', sys.excepthook.__name__)\n" + VIEWS)
        site.write("manage.py", hook + MANAGE)
        server.wait_for("^views have <lambda>$")
        assert server.count("^Traceback") == 0


@pytest.fixture
def expecting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As at the start of a process; what the hook that was there before shows, and who stands by."""
    said: list[str] = []
    monkeypatch.setattr(sys, "argv", ["manage.py", "runprefork"])
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: said.append(kind.__name__))
    monkeypatch.setattr(first_start, "_before", None)
    monkeypatch.setattr(first_start, "_awaited", False)
    monkeypatch.setattr(first_start, "stand_by", lambda error: said.append("stands by"))
    first_start.expect_the_worst()
    first_start.expect_the_worst()  # by the entry point, and by the app
    return said


def fail() -> None:
    sys.excepthook(ValueError, ValueError(), None)


def test_a_failure_is_shown_by_who_was_there_before(expecting: list[str]) -> None:
    fail()
    fail()
    assert expecting == ["ValueError", "stands by", "ValueError"], "once"


def test_a_hook_on_top_of_ours_may_ask_it_when_all_is_over(
    expecting: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", lambda *failure: (expecting.append("on top"), ours(*failure)))
    first_start.is_over()
    fail()
    assert expecting == ["on top", "ValueError"]


def test_without_reload_a_failure_ends_it_as_python_would(site: OwnSite) -> None:
    site.write("site_settings.py", "1 / 0")
    ended = site.run()
    assert ended.returncode == 1 and ended.stderr.count("ZeroDivisionError") == 1 and "waiting" not in ended.stderr
    site.write("site_settings.py", "import sys\nsys.exit(7)")
    assert site.run().returncode == 7


def test_what_the_caller_did_wrong_or_did_not_mean_to_serve_waits_for_nothing(site: OwnSite) -> None:
    ended = site.run("--reload", "--no-such-flag")
    assert ended.returncode == 2 and ended.stderr.startswith("usage: python -m django_prefork [-h]")
    ended = site.run("--reload", "--workers", "many")
    assert ended.returncode == 1 and ended.stderr.startswith("CommandError: flag --workers says 'many'")
    site.write("site_settings.py", "1 / 0")
    for question in ("--check", "--print-config"):
        ended = site.run(question, PREFORK_RELOAD="1")
        assert ended.returncode == 1 and "ZeroDivisionError" in ended.stderr and "waiting" not in ended.stderr
    ended = site.run("--reload", "--workers", "many")
    assert ended.returncode == 1 and ended.stderr.rstrip().endswith("whole number from 1 to 512.")
    site.write("manage.py", "")
    ended = site.run("--reload")
    assert ended.returncode == 1 and ended.stderr.startswith("manage.py has ended without a command: ")
    (site.folder / "manage.py").unlink()
    ended = site.run("--reload", DJANGO_SETTINGS_MODULE="")
    assert ended.returncode == 1
    assert ended.stderr.startswith("There is neither a manage.py in this folder nor DJANGO_SETTINGS_MODULE")


def test_where_there_is_no_manage_py_settings_may_be_named_by_a_flag(site: OwnSite) -> None:
    (site.folder / "manage.py").unlink()
    ended = site.run("--check", "--settings", "site_settings", DJANGO_SETTINGS_MODULE="")
    assert ended.returncode == 0 and ended.stdout.endswith("Ready to serve.\n"), ended.stderr


def test_all_else_is_as_with_manage_py(site: OwnSite) -> None:
    site.write("setproctitle.py", "raise ImportError('a title would hide the command')")
    asked = [subprocess.run([*PYTHON, "manage.py", "runprefork", "--print-config"], cwd=site.folder, text=True,
             env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True).stdout]  # fmt: skip
    asked.append(site.run("--print-config").stdout)
    assert asked[0] == asked[1] and "bind" in asked[0]
    assert site.run("--check").stdout.endswith("Ready to serve.\n")
    assert site.run("--help").stdout.startswith("usage: python -m django_prefork [-h]")
    with site.command(
        "--workers", "2", "--verbosity", "2", bind="127.0.0.1:0", errors="ZeroDivision|reload failed"
    ) as server:
        server.ready()
        assert server.get("/code") == (200, b"one")
        old = psutil.Process(server.arbiter())
        assert old.cmdline()[1:4] == ["-B", "-m", "django_prefork"]
        site.say("two")
        server.kill(signal.SIGHUP)
        server.ready(2)
        eventually(lambda: not old.is_running(), "the old generation is gone")
        assert server.get("/code") == (200, b"two")
        site.write("site_settings.py", "1 / 0")
        server.kill(signal.SIGHUP)
        server.wait_for("reload failed, gen=3 exited with status 1: the old code serves on")
        server.wait_for("^ZeroDivisionError")
        assert server.get("/code") == (200, b"two")
        site.write("site_settings.py", SETTINGS)
        site.say("three")
        server.kill(signal.SIGUSR2)
        server.wait_for("SIGUSR2: .* takes over")
        server.ready(4)
        becomes(server, "/code", b"three")
        eventually(lambda: len(server.processes()) == 4, "supervisor, arbiter and two workers")
        assert server.stop() == 0
