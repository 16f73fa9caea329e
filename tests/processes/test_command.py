"""The command as people type it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.harness import ROOT, Server, eventually


def test_print_config_says_where_each_value_came_from(capsys: pytest.CaptureFixture[str], settings: object) -> None:
    settings.PREFORK = {"TIMEOUT": 12}  # type: ignore[attr-defined]
    call_command("runprefork", "8123", workers=3, print_config=True)
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "3" in lines["workers"] and "--workers" in lines["workers"]
    assert "12" in lines["timeout"] and 'PREFORK["TIMEOUT"]' in lines["timeout"]
    assert "127.0.0.1:8123" in lines["bind"]
    assert "default" in lines["backlog"]


def test_check_loads_everything_and_serves_nothing() -> None:
    with Server("--check") as server:
        assert server.wait() == 0
    assert server.count("Ready to serve") == 1 and server.count("Serving at") == 0
    with Server("--check", application="broken_import.application") as server:
        assert server.wait() == 1
    assert server.count("ImportError: this application does not import") == 1


def test_what_is_no_application_is_not_served() -> None:
    with Server("--workers", "1", application="settings.DATABASES", errors="exited with status 1") as server:
        assert server.wait() == 1
    says = r"^settings\.WSGI_APPLICATION names 'tests\.site\.settings\.DATABASES', which is no application but a dict; "
    assert server.count(says) == 1 and server.count("Traceback|Serving at") == 0
    with Server("--check", application="settings.DATABASES") as server:
        assert server.wait() == 1
    assert server.count("which is no application but a dict; ") == 1


@pytest.mark.parametrize("way", [["manage.py", "runprefork"], ["-m", "django_prefork"]], ids=" ".join)
def test_a_folder_that_was_removed_is_no_place_to_start(way: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    way = [str(ROOT / word) if word == "manage.py" else word for word in way]
    script = f"import os, sys; os.rmdir({str(folder)!r}); os.execv(sys.executable, [sys.executable, *{way!r}])"
    with Server(bind=None, command=[sys.executable, "-c", script], folder=folder) as server:
        assert server.wait() == 1
    assert server.count(r"The current folder cannot be found \(No such file or directory\)") == 1
    assert server.count("Traceback") == 0


def test_a_bad_option_is_a_command_error_for_call_command() -> None:
    with pytest.raises(CommandError, match="--workers"):
        call_command("runprefork", workers="many")


def test_a_script_that_calls_the_command_becomes_the_server(tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text(
        "import django\n"
        "django.setup()\n"
        "from django.core.management import call_command\n"
        "try:\n"
        "    call_command('runprefork', bind=['127.0.0.1:0'], workers=1)\n"
        "finally:\n"
        "    print('came back')\n"
    )
    with Server(bind=None, command=[sys.executable, str(script)], errors="the arbiter gen=1").ready() as server:
        assert server.get()[0] == 200
        # A new generation is the same script again.
        server.kill(9, server.arbiter())
        server.ready(2)
        assert server.stop() == 0
    assert server.count("came back") == 0


def test_it_greets_like_runserver() -> None:
    with Server("--workers", "2").ready() as server:
        server.wait_for(r"django-prefork \S+, Django \S+, Python \S+, using settings 'tests.site.settings'")
        server.wait_for(rf"2 workers, PID {server.pid}\. Quit the server with SIGTERM\.")


def test_verbosity_0_says_only_what_is_wrong() -> None:
    with Server("--workers", "1", "--verbosity", "0", errors="was ended by SIGKILL") as server:
        worker = eventually(lambda: [pid for pid in server.processes() if pid != server.pid][1:], "a worker")[0]
        server.kill(9, worker)
        server.wait_for("was ended by SIGKILL")
        assert server.stop() == 0
    # The Supervisor knows no verbosity: of the stop it speaks as ever.
    said = [line.partition("[INFO] ")[2] for line in server.lines if "[INFO]" in line]
    assert said == ["SIGTERM: stopping", "stopped, exit status 0"]


def test_help_names_a_unit_for_every_option() -> None:
    command = [sys.executable, "manage.py", "runprefork", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "seconds" in text and "bytes" in text and "--graceful-timeout" in text


def test_hooks_are_called_where_they_say() -> None:
    with Server("--workers", "1", application="hooked.application", errors="receiver|as asked").ready() as server:
        arbiter = server.arbiter()
        (worker,) = server.full_strength(1)
        assert server.get()[0] == 200
        assert server.stop() == 0
    said = [line.split()[1:] for line in server.lines if line.startswith("hook ")]
    assert said == [
        ["post_fork", str(worker), "slot=0", "generation=1"],
        ["worker_ready", str(worker), "slot=0", "generation=1"],
        ["server_ready", str(arbiter), "workers=1"],
        ["server_stopping", str(arbiter)],
        ["worker_exiting", str(worker)],
        ["worker_died", str(arbiter), f"pid={worker}", "status=0", "expected=True"],
    ]
    # A receiver that raises is named, and does no harm.
    assert server.count("signal receiver .*broken failed") == 1
