"""`manage.py preforkctl`, and the socket it asks at."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_prefork import plain
from django_prefork.asking import ControlError, ask
from tests.harness import PATIENCE, ROOT, Server, eventually
from tests.observing.tools import django, end, stuck


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def ctl(path: Path, *words: str) -> str:
    """What the command says."""
    out = io.StringIO()
    call_command("preforkctl", "--control-socket", str(path), *words, stdout=out)
    return out.getvalue()


def refusal(path: Path, *words: str) -> str:
    with pytest.raises(CommandError) as error:
        ctl(path, *words)
    return str(error.value)


def answered(path: Path, **request: Any) -> dict[str, Any]:
    return ask(str(path), request)


def test_stuck_requests_are_named_and_their_stacks_are_told(path: Path) -> None:
    with django("--workers", "3", "--timeout", "60", "--control-socket", str(path)).ready() as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        stuck(server, 3)
        said = ctl(path, "status")
        assert said.count("GET /sleep/20/ (tests.site.urls.Sleep) for 127.0.0.1") == 3
        assert "3 workers, 3 busy" in said and "gen 1 ready" in said
        whole = json.loads(ctl(path, "status", "--json"))
        assert [worker["request"]["path"] for worker in whole["workers"]] == ["/sleep/20/"] * 3
        every = ctl(path, "stacks")
        assert every.count("in get\n") == 3 and all(f"worker={slot}\n" in every for slot in range(3))
        one = ctl(path, "stacks", "1")
        assert one.count("in get\n") == 1 and "worker=1\n" in one and "prefork-guard" not in one.splitlines()[0]
        assert refusal(path, "stacks", "7") == "There is no worker in slot 7."
        # One that is stopped has none to give, and the others have.
        os.kill(whole["workers"][0]["pid"], signal.SIGSTOP)
        answer = answered(path, do="stacks")
        assert answer["missing"] == [0] and len(answer["stacks"]) == 2
        assert "worker=0\n(it gave no stacks" in plain.stacks(answer)
        os.kill(whole["workers"][0]["pid"], signal.SIGCONT)
        end(server)


def test_steering(path: Path) -> None:
    with django("--workers", "1", "--control-socket", str(path)).ready() as server:
        assert "3 workers" in ctl(path, "scale", "3")
        server.full_strength(3)
        assert "from 1 to 512" in refusal(path, "scale", "0")
        assert "reload begins" in ctl(path, "reload")
        server.ready(generation=2)
        server.wait_for("arbiter gen=1 leaves")
        assert len(server.full_strength(1, generation=2)) == 1
        assert server.count(rf"preforkctl uid={os.getuid()}: (scale:3|reload)$") == 2
        assert "not ready any more" in ctl(path, "drain")
        eventually(lambda: answered(path, do="status")["status"]["state"] == "draining", "it drains")
        sock = server.ask("/")
        assert b"Connection: close" in sock.recv(1000)
        sock.close()
        assert refusal(path, "reload") == "The server drains: it can only be stopped."
        assert "The server stops" in ctl(path, "stop")
        assert server.wait() == 0 and not path.exists()


def test_where_no_server_runs_that_is_said_with_a_remedy(path: Path) -> None:
    nobody = f"No server runs at {path}: start it, or name its control_socket."
    assert refusal(path, "status") == nobody
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert refusal(path, "stop") == nobody
    with pytest.raises(CommandError, match="No control_socket is configured: start the server with"):
        call_command("preforkctl", "status")
    command = [sys.executable, "-m", "django_prefork.ctl", "--control-socket", str(path), "status"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (said.returncode, said.stdout, said.stderr) == (1, "", nobody + "\n")


def test_nonsense_is_answered_and_harms_nobody(path: Path) -> None:
    with Server("--workers", "1", "--control-socket", str(path)).ready() as server:
        for line in (b"\n", b"{}\n", b"[1]\n", b"x" * 5000, b'{"do": "scale", "workers": true}\n', b"\xff\n"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(str(path))
                sock.sendall(line)
                assert "error" in json.loads(sock.recv(1000))
        for slot in ("1", 1.5, {}, [], True, -1):
            with pytest.raises(ControlError):
                answered(path, do="stacks", slot=slot)
        assert server.get("/")[0] == 200


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="becoming another user takes root")
def test_another_user_is_turned_away_even_where_the_file_lets_him_in() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "control.sock")
        with Server("--workers", "1", "--control-socket", str(path)).ready() as server:
            path.chmod(0o666)
            script = "import os, sys; from django_prefork.asking import ask; os.setuid(65534); ask(sys.argv[1], {})"
            command = [sys.executable, "-c", script, str(path)]
            said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
            assert "not the user that it runs as" in said.stderr
            server.wait_for("turned away at the control socket: uid=65534")
            assert server.get("/")[0] == 200


def test_watch_draws_what_status_tells_and_listens_to_keys(path: Path) -> None:
    pytest.importorskip("rich")
    with django("--workers", "2", "--timeout", "60", "--control-socket", str(path)).ready() as server:
        stuck(server, 1)
        terminal, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "django_prefork.ctl", "--control-socket", str(path), "watch"],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "50"},
        )
        os.close(theirs)
        seen = bytearray()

        def until(word: bytes) -> None:
            deadline = time.monotonic() + PATIENCE
            while word not in seen:
                assert time.monotonic() < deadline, seen[-4000:]
                if select.select([terminal], [], [], 0.1)[0]:
                    seen.extend(os.read(terminal, 65536))
            seen.clear()

        try:
            until(b"/sleep/20/")
            os.write(terminal, b"s")
            until(b"age of the request")
            os.write(terminal, b"\r")
            until(b"any key goes back")
            os.write(terminal, b"x")
            until(b"sorted by")
            os.write(terminal, b"q")
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
        end(server)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (12e-6, "12 us"),
        (0.0034, "3.4 ms"),
        (5, "5.0 s"),
        (125, "2 m 5 s"),
        (11220, "3 h 7 m"),
        (352800, "4 d 2 h"),
    ],
)
def test_durations_for_people(value: float | None, text: str) -> None:
    assert plain.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (3500, "3.42 KiB"), (1 << 40, "1 TiB")])
def test_sizes_for_people(value: int, text: str) -> None:
    assert plain.size(value) == text


def test_a_clients_words_cannot_steer_a_terminal() -> None:
    request = {"method": "GET", "path": "/\x1b[2J", "view": "", "client": "", "id": "a\nb"}
    assert plain.serving({"request": request}) == "GET /\\x1b[2J id=a\\nb"
