"""The image of the page and the one of the demo, without Docker: their commands, in folders that stand for them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploying.tools import Machine, ask, block
from tests.faults.tools import need, need_root
from tests.harness import PATIENCE, ROOT, Server, eventually, free_port
from tests.wire.tools import needs_tool

IMAGE = block("deploying.md: FROM python:3.13-slim")
DEMO = (ROOT / "Dockerfile").read_text()
TEN_SECONDS = 10.0  # what `docker stop` waits for


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Instructions and what they have behind them."""
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            instruction, _, rest = line.partition(" ")
            yield instruction, rest.strip()


def step(text: str, instruction: str) -> str:
    return [rest for name, rest in steps(text) if name == instruction][-1]


def test_the_image_has_no_step_that_nobody_tries() -> None:
    names = [name for name, _ in steps(IMAGE)]
    assert names == ["FROM", "WORKDIR", "COPY", "RUN", "COPY", "RUN", "USER", "ENV", "CMD"]
    assert step(IMAGE, "FROM").startswith("python:3.")


def test_the_image_installs_what_the_project_needs() -> None:
    install = next(rest for name, rest in steps(IMAGE) if name == "RUN" and "pip" in rest)
    with Machine() as machine:
        (machine.project / "requirements.txt").write_text("django>=5.2\n")  # which is here: no network is needed
        done = machine.run(shlex.split(f"python -m {install}"), PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
        assert done.returncode == 0 and "already satisfied" in done.stdout, done


@pytest.mark.parametrize("text", [IMAGE, DEMO], ids=["page", "demo"])
def test_the_user_of_the_image_can_be_made(text: str, tmp_path: Path) -> None:
    need_root()
    useradd = need("useradd", "passwd")
    words = shlex.split(next(rest for name, rest in steps(text) if name == "RUN" and "useradd" in rest))
    words = words[: words.index("&&")] if "&&" in words else words
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).touch()
    subprocess.run([useradd, "--prefix", str(tmp_path), *words[1:]], check=True, capture_output=True)
    assert f"{step(text, 'USER')}:x:10001:" in (tmp_path / "etc" / "passwd").read_text()


def test_the_command_of_the_image_serves_and_stops_in_time() -> None:
    environment = dict(word.split("=", 1) for word in shlex.split(step(IMAGE, "ENV")))
    assert environment.keys() == {"PORT"}
    with free_port() as port:
        pass
    with Machine() as machine:
        command = json.loads(step(IMAGE, "CMD"))  # JSON: the exec form
        with machine.serve(command, environment={"PORT": str(port)}).ready() as server:
            server.wait_for(f"http://0.0.0.0:{port}/")
            assert ask(port)[0] == 200
            server.kill(signal.SIGTERM)
            assert server.wait(TEN_SECONDS) == 0


def test_the_shell_form_would_not_hear_of_a_stop() -> None:
    """As PID 1 a shell without a handler gets no TERM, and gives it to nobody: why the page says to use the other."""
    need_root()
    unshare, sh = need("unshare", "util-linux"), need("dash", "dash")
    with Machine() as machine:
        command = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child", sh, "-c"]
        with machine.serve([*command, "python manage.py runprefork 127.0.0.1:0 --workers 1"]).ready() as server:
            (shell,) = (pid for pid in server.processes() if Path(f"/proc/{pid}/comm").read_text() == "dash\n")
            server.kill(signal.SIGTERM, shell)
            assert ask(server.port)[0] == 200
            assert server.count("stopping") == 0
            server.kill(signal.SIGKILL, server.pid)
            server.wait()


def test_with_a_root_that_is_read_only_it_needs_the_folder_for_temporary_files() -> None:
    need_root()
    unshare, mount = need("unshare", "util-linux"), need("mount", "mount")
    script = 'mount -t tmpfs none "$TMPDIR" && mount -o remount,bind,ro / && exec "$@"'
    prefix = [unshare, "--mount", "sh", "-c", script, "sh"]
    with tempfile.TemporaryDirectory() as scratch, Machine() as machine:
        if subprocess.run([unshare, "--mount", mount, "-o", "remount,bind,ro", "/"], capture_output=True).returncode:
            pytest.skip("cannot make a root read-only here")
        command = ["python", "manage.py", "runprefork", "127.0.0.1:0", "--workers", "1"]
        with machine.serve([*prefix, *command], environment={"TMPDIR": scratch}).ready() as server:
            touched = [
                need("nsenter", "util-linux"),
                "--mount",
                "--target",
                str(server.pid),
                "touch",
                f"{machine.root}/x",
            ]
            assert b"Read-only" in subprocess.run(touched, capture_output=True).stderr
            status, said = ask(server.port, body=b"x" * 3_000_000)
            assert (status, said["body"]) == (200, 3_000_000)
            server.kill(signal.SIGHUP)
            server.ready(2)
            server.wait_for("arbiter gen=1 leaves: retired")


@needs_tool("docker")
def test_docker_has_the_flags_that_the_pages_name() -> None:
    pages = (ROOT / "docs" / "deploying.md").read_text() + (ROOT / "README.md").read_text() + DEMO
    found = re.findall(r"docker (stop|run|build)((?: --[a-z-]+)+)", pages)
    assert {command for command, _ in found} == {"stop", "run", "build"}
    for command, flags in found:
        told = subprocess.run(["docker", command, "--help"], capture_output=True, text=True).stdout
        for flag in flags.split():
            assert re.search(rf"{flag}\b", told), f"docker {command} {flag}"


def test_the_demo_begins_stays_healthy_and_stops_as_its_image_says() -> None:
    check = json.loads(step(DEMO, "HEALTHCHECK").partition("CMD ")[2])
    command = [*json.loads(step(DEMO, "ENTRYPOINT")), *json.loads(step(DEMO, "CMD"))]
    environment = dict(word.split("=", 1) for word in shlex.split(step(DEMO, "ENV")))
    with free_port() as port, tempfile.TemporaryDirectory() as folder:
        pass
    with tempfile.TemporaryDirectory() as folder:
        data, app = Path(folder) / "data", Path(folder) / "app"
        data.mkdir()
        app.mkdir()
        for name in ("manage.py", "demo_project"):  # the second stage's COPY
            assert f"COPY {name} " in DEMO
            source = ROOT / name
            shutil.copytree(source, app / name) if source.is_dir() else shutil.copy(source, app / name)
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DEMO_DATA_DIR": str(data),
            "TMPDIR": str(data),
            "PORT": str(port),
            "PREFORK_DRAIN_DELAY": "30s",
        }

        def healthy() -> bool:
            done = subprocess.run(check, env=environment, capture_output=True, timeout=PATIENCE)
            return done.returncode == 0

        assert not healthy()
        with Server(
            command=command, bind=None, settings="demo_project.settings", folder=app, environment=environment
        ) as server:
            server.ready()
            assert server.wait_for(r"PID (\d+)\.")[1] == str(server.pid), "the script has become the server"
            assert healthy()
            server.kill(signal.SIGTERM)
            server.wait_for("draining")
            eventually(lambda: not healthy(), "it says that it is not ready")
            server.insist()
            assert server.wait(TEN_SECONDS) == 0
