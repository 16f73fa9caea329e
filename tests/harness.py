"""A real server in real processes, and clients that keep asking it.

Every `Server` ends by checking that nothing is left: no process of its session, no ERROR in its log that the test did
not ask for, no ResourceWarning.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import psutil
import pytest

from django_prefork.supervisor.supervisor import SAME_STOP

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds that anything may take on a busy machine before a test gives up on it


def eventually(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """For what only the kernel knows and tells nobody (a process is gone): look until it is so."""
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"never so within {patience} s: {what}"
        time.sleep(0.01)  # prefork: ok
    return answer


def require_another_user() -> None:
    """Skip the test unless this process may become `nobody`, who may read what it runs."""
    if os.geteuid() != 0:
        pytest.skip("needs root, which alone can change its user")
    for folder in (Path(sys.prefix), Path(django.__file__), ROOT):
        if not all(path.stat().st_mode & 0o001 for path in (folder.parent, *folder.parents)):
            pytest.skip(f"needs packages that any user may read, and {folder} is in a folder that is closed to others")


class Server:
    """`manage.py runprefork` on a port of the kernel's choice."""

    def __init__(
        self,
        *arguments: str,
        bind: str | None = "127.0.0.1:0",
        application: str = "hello",
        settings: str = "tests.site.settings",
        environment: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        command: list[str] | None = None,
        folder: Path = ROOT,
        pass_fds: tuple[int, ...] = (),
        errors: str = "",
    ) -> None:
        """`errors`: a regular expression for the ERROR lines that the test expects."""
        self.errors = errors
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._connections: list[socket.socket] = []
        if command is None:
            command = [*prefix, sys.executable, "-X", "dev", str(ROOT / "manage.py"), "runprefork"]
        command += [bind] if bind else []
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("PREFORK_")},
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "DJANGO_SETTINGS_MODULE": settings,
                "TEST_APPLICATION": f"tests.site.{application}"
                if "." in application
                else f"tests.site.applications.{application}",
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            text=True,
            errors="replace",
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    # -- the log -------------------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in list(self.lines))

    def wait_for(self, pattern: str, times: int = 1, patience: float = PATIENCE) -> re.Match[str]:
        """The `times`-th line that matches, once it is there."""
        deadline = time.monotonic() + patience
        with self._news:
            while True:
                found = [match for line in self.lines if (match := re.search(pattern, line))]
                if len(found) >= times:
                    return found[times - 1]
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None and not self._reader.is_alive()
                assert left > 0 and not ended, f"no line {pattern!r} ({times} times) in:\n{self.log}"
                self._news.wait(min(left, 0.5))

    # -- processes -----------------------------------------------------------------------------------------------------

    def ready(self, generation: int = 1) -> Server:
        try:
            self.wait_for(rf"arbiter gen={generation} pid=\d+ ready")
        except BaseException as error:
            self.__exit__(type(error))  # `with Server().ready()` has not begun yet
            raise
        return self

    @property
    def port(self) -> int:
        return int(self.wait_for(r"Serving at http://.*:(\d+)/")[1])

    def arbiter(self, generation: int = 1) -> int:
        return int(self.wait_for(rf"arbiter gen={generation} pid=(\d+) ready")[1])

    def processes(self) -> list[int]:
        """All that began with this server, orphans included: they share its session."""
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(pid) == self.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    found.append(pid)
        return found

    def workers(self, generation: int = 1) -> list[int]:
        """Those that are ready, as the log knows them, and still there."""
        said = [
            int(match[1])
            for line in list(self.lines)
            if (match := re.search(rf"worker=\d+ gen={generation} pid=(\d+) ready", line))
        ]
        alive = set(self.processes())
        return [pid for pid in said if pid in alive]

    def full_strength(self, count: int, generation: int = 1, patience: float = PATIENCE) -> list[int]:
        return eventually(
            lambda: workers if len(workers := self.workers(generation)) == count else None,
            f"{count} workers of generation {generation}",
            patience,
        )

    def kill(self, number: int = signal.SIGTERM, pid: int | None = None) -> None:
        os.kill(pid or self.pid, number)

    def insist(self) -> None:
        """TERM once more, and not so soon that it would be the same one."""
        time.sleep(2 * SAME_STOP)  # prefork: ok
        self.kill(signal.SIGTERM)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit status, once it has ended and its log is read to the end."""
        status = self.process.wait(patience)
        self._reader.join(patience)
        return status

    def stop(self) -> int:
        self.kill(signal.SIGTERM)
        return self.wait()

    # -- asking --------------------------------------------------------------------------------------------------------

    def get(self, path: str = "/", timeout: float = PATIENCE) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A raw connection; closed with the server, if the test does not."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self._connections.append(sock)
        return sock

    def ask(self, path: str = "/", *fields: str) -> socket.socket:
        """A connection with a request on its way: for who wants to see what happens before `read_answer`."""
        sock = self.connect()
        send(sock, path, *fields)
        return sock

    # -- the end -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for sock in self._connections:
            sock.close()
        try:
            if self.process.poll() is None:
                self.kill(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(15)
            if kind is None:
                eventually(lambda: not self.processes(), f"no process left of:\n{self.log}", 15)
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self._reader.join(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()
        if kind is None:
            unasked = [
                line
                for line in self.lines
                if re.search(r"\[(ERROR|CRITICAL)\]|ResourceWarning|DeprecationWarning|a mistake of the server", line)
                and not (self.errors and re.search(self.errors, line))
            ]
            assert not unasked, "the log says what the test did not ask for:\n" + "\n".join(unasked) + "\n\n" + self.log


class Clients:
    """`count` clients that ask again and again, each in a thread, until the block ends.

    `keep_alive`: each on one connection for as long as the server lets it; else one connection a request. `failures`
    are connections that failed, and answers other than 200.
    """

    def __init__(self, server: Server, count: int, path: str = "/", *, keep_alive: bool = False) -> None:
        self.port = server.port
        self.path = path
        self.keep_alive = keep_alive
        self.answers: list[tuple[int, bytes]] = []
        self.failures: list[str] = []
        #: How many connections were made: with `keep_alive`, as many as clients if the server closed none.
        self.connections = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        while not self._stop.is_set():
            if connection.sock is None:
                self.connections += 1
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                self.answers.append((answer.status, answer.read()))
                if answer.status != 200:
                    self.failures.append(f"answered with {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            if not self.keep_alive:
                connection.close()
        connection.close()

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.answers, "a first answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def some_more(self, count: int = 20) -> None:
        """Wait until `count` more requests have been answered."""
        seen = len(self.answers)
        eventually(lambda: len(self.answers) >= seen + count, f"{count} more answers")


def send(sock: socket.socket, path: str, *fields: str) -> None:
    """A request, with the header `fields` as they are."""
    sock.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode())


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer from a raw connection: status, headers in lower case, body."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    with answer:
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
