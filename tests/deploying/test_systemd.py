"""The units: read by systemd, and played as systemd does it (systemd.service(5), sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prefork.config import resolve
from tests.deploying.tools import Machine, UnixConnection, ask, block, unit_lines
from tests.harness import PATIENCE, Server, eventually
from tests.wire.tools import needs_tool

SERVICE = block("deploying.md: [Unit]")
SOCKET = block("deploying.md: [Socket]")
WITH_SOCKET = re.sub(r" --bind \S+|^(?:RuntimeDirectory|UMask)=.*\n", "", SERVICE, flags=re.MULTILINE)

# What is systemd's alone, and only read by it here.
READ = {"Description", "After", "User", "Group", "Restart", "WantedBy", "SocketGroup"}
PLAYED = {
    "Type",
    "WorkingDirectory",
    "Environment",
    "EnvironmentFile",
    "RuntimeDirectory",
    "UMask",
    "ExecStart",
    "ExecReload",
    "KillMode",
    "TimeoutStopSec",
    "ListenStream",
    "SocketMode",
}

STARTER = """
import os, sys
umask, descriptors, *command = sys.argv[1:]
os.umask(int(umask, 8))
for number, descriptor in enumerate(filter(None, descriptors.split(","))):
    os.dup2(int(descriptor), 3 + number)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number + 1))
os.execv(command[0], command)
"""


class Notices:
    """The other end of NOTIFY_SOCKET, which knows who speaks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)

    def wait_for(self, word: str, main: int) -> str:
        """The next message with `word`, which only the main process may send (NotifyAccess=main)."""
        while True:
            data, control, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
            ((_, _, credentials),) = control
            assert struct.unpack("iii", credentials)[0] == main
            if word in data.decode().splitlines():
                return data.decode()

    def close(self) -> None:
        self._socket.close()


class Service:
    """A unit, and systemd's part of it."""

    def __init__(self, machine: Machine, text: str) -> None:
        self.machine = machine
        lines = list(unit_lines(machine.here(text)))
        assert {key for _, key, _ in lines} <= READ | PLAYED, "a line that nobody tries"
        self.values = {key: value for _, key, value in lines}
        assert self.values["Type"] == "notify" and self.values["KillMode"] == "mixed"
        self.notices = Notices(machine.root / "notify")

    def start(self, *listeners: socket.socket, errors: str = "") -> Server:
        if "RuntimeDirectory" in self.values:
            (self.machine.root / "run" / self.values["RuntimeDirectory"]).mkdir(exist_ok=True)
        environment = dict(word.split("=", 1) for word in shlex.split(self.values["Environment"]))
        path = Path(self.values["EnvironmentFile"].removeprefix("-"))
        if path.exists():
            environment |= dict(line.split("=", 1) for line in path.read_text().splitlines())
        elif not self.values["EnvironmentFile"].startswith("-"):
            raise FileNotFoundError(path)
        assert Path(self.values["WorkingDirectory"]) == self.machine.project
        numbers = [listener.fileno() for listener in listeners]
        starter = [sys.executable, "-c", STARTER, self.values.get("UMask", "0022"), ",".join(map(str, numbers))]
        return self.machine.serve(
            [*starter, *shlex.split(self.values["ExecStart"])],
            environment={"NOTIFY_SOCKET": str(self.notices.path), **environment},
            pass_fds=tuple(numbers),
            errors=errors,
        )

    def ready(self, server: Server) -> None:
        assert f"MAINPID={server.pid}" in self.notices.wait_for("READY=1", server.pid)

    def reload(self, server: Server) -> None:
        command = self.values["ExecReload"].replace("$MAINPID", str(server.pid))
        subprocess.run(shlex.split(command), check=True)
        self.notices.wait_for("RELOADING=1", server.pid)
        self.notices.wait_for("READY=1", server.pid)

    def stop(self, server: Server) -> int:
        server.kill(signal.SIGTERM)  # KillMode=mixed: to the main process alone
        self.notices.wait_for("STOPPING=1", server.pid)
        return server.wait(float(self.values["TimeoutStopSec"]))


@contextlib.contextmanager
def service(text: str) -> Iterator[Service]:
    with Machine() as machine:
        unit = Service(machine, text)
        try:
            yield unit
        finally:
            unit.notices.close()


@needs_tool("systemd-analyze")
@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("UMask=0007", "AmbientCapabilities=CAP_NET_BIND_SERVICE"),
        ("Type=notify", "Type=notify\nWatchdogSec=10"),
        ("ExecReload=kill -HUP $MAINPID\n", "Type=notify-reload\n"),
    ],
    ids=lambda change: change[1].strip(),
)
def test_systemd_finds_nothing_wrong_with_the_units(change: tuple[str, str]) -> None:
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True).stdout
    if "notify-reload" in change[1] and int(re.findall(r"\d+", version)[0]) < 253:
        pytest.skip("needs systemd 253")
    with Machine() as machine:
        for name, text in {"mysite": SERVICE, "socketed": WITH_SOCKET}.items():
            assert not change[0] or change[0] in text or name == "socketed"
            (machine.root / f"{name}.service").write_text(machine.here(text.replace(*change) if change[0] else text))
        (machine.root / "socketed.socket").write_text(machine.here(SOCKET))
        units = ("mysite.service", "socketed.service", "socketed.socket")
        done = subprocess.run(
            ["systemd-analyze", "--man=no", "verify", *(str(machine.root / name) for name in units)],
            capture_output=True,
            text=True,
        )
        complaints = [line for line in done.stderr.splitlines() if str(machine.root) in line or "socketed" in line]
        assert (done.returncode, complaints) == (0, []), done.stderr


def test_the_service_starts_reloads_and_stops() -> None:
    with service(SERVICE) as unit:
        machine = unit.machine
        (machine.root / "etc" / "mysite.env").write_text("PREFORK_WORKERS=2\n")
        with unit.start() as server:
            unit.ready(server)
            assert stat.S_IMODE(machine.socket.stat().st_mode) == 0o770, "the group may connect"
            status, said = ask(machine.socket)
            assert status == 200 and len(server.full_strength(2)) == 2
            # Of another length: within one second, Python tells old code from new by that.
            (machine.project / "mysite" / "urls.py").write_text(
                (machine.project / "mysite" / "urls.py").read_text().replace('"pid"', '"renewed"')
            )
            unit.reload(server)
            # An old worker that has just accepted still answers.
            again = eventually(lambda: ("renewed" in (told := ask(machine.socket)[1])) and told, "the new code serves")
            assert again["arbiter"] != said["arbiter"]
            assert unit.stop(server) == 0
        assert not machine.socket.exists()


def test_what_the_service_has_for_its_stop_is_enough() -> None:
    with service(SERVICE) as unit:
        defaults = resolve({}, {}, None)
        assert float(unit.values["TimeoutStopSec"]) > defaults.drain_delay + defaults.graceful_timeout


def test_systemd_starts_it_again_where_it_was_killed() -> None:
    """With KillMode=mixed, systemd kills what is left of it first."""
    with service(SERVICE) as unit:
        with unit.start() as server:
            unit.ready(server)
            os.killpg(server.pid, signal.SIGKILL)
            assert server.wait() == -signal.SIGKILL
        assert unit.values["Restart"] == "on-failure" and unit.machine.socket.exists()
        with unit.start() as server:
            unit.ready(server)
            assert ask(unit.machine.socket)[0] == 200
            assert unit.stop(server) == 0


def test_a_socket_of_systemd_keeps_those_who_come_during_a_restart() -> None:
    with service(WITH_SOCKET) as unit, socket.socket(socket.AF_UNIX) as listener:
        machine = unit.machine
        settings = {key: value for _, key, value in unit_lines(machine.here(SOCKET))}
        assert settings.keys() <= READ | PLAYED
        assert settings["ListenStream"] == str(machine.socket)
        machine.socket.parent.mkdir()
        listener.bind(settings["ListenStream"])
        machine.socket.chmod(int(settings["SocketMode"], 8))
        listener.listen()
        with unit.start(listener) as server:
            unit.ready(server)
            assert ask(machine.socket)[0] == 200
            unit.reload(server)
            assert ask(machine.socket)[0] == 200
            assert unit.stop(server) == 0
        waiting = [UnixConnection(machine.socket) for _ in range(5)]
        for client in waiting:
            client.request("GET", "/")
        with unit.start(listener) as server:
            unit.ready(server)
            for client in waiting:
                answer = client.getresponse()
                assert answer.status == 200 and answer.read()
                client.close()
            assert unit.stop(server) == 0
        assert machine.socket.exists(), "it is systemd's"


@needs_tool("systemd-socket-activate")
def test_it_starts_with_the_first_connection() -> None:
    with Machine() as machine:
        machine.socket.parent.mkdir()
        passed = ["PATH", "PYTHONPATH", "DJANGO_SETTINGS_MODULE", "PYTHONDEVMODE", "PYTHONUNBUFFERED"]
        command = ["systemd-socket-activate", "--listen", str(machine.socket), *(f"--setenv={name}" for name in passed)]
        start = shlex.split(unit_command(machine))
        with machine.serve([*command, *start]) as server:
            server.wait_for("Listening on")
            assert ask(machine.socket)[0] == 200
            server.ready()
            assert server.stop() == 0


def unit_command(machine: Machine) -> str:
    return next(value for _, key, value in unit_lines(machine.here(WITH_SOCKET)) if key == "ExecStart")
