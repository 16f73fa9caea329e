"""Who gets a unix socket or a pid file, and who may remove it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prefork import socket_file
from django_prefork.arbiter.listeners import Listener, ListenError, listen
from django_prefork.config import Bind
from tests.harness import ROOT

CONTENDER = """
import sys, time
from django_prefork.arbiter.launch import LaunchError, _give_back, _lock_pid_file
from django_prefork.arbiter.listeners import ListenError, listen
from django_prefork.config import Bind
from django_prefork.supervisor.place import remove_pid_file

class PidFile:
    def __init__(self, path):
        self.words = _lock_pid_file(path)
        self.inode = self.words["inode"]

    def close(self):
        self.words["made"] = False
        _give_back(self.words)

    def remove(self):
        remove_pid_file(self.words)
        self.close()

for line in sys.stdin:
    kind, path, at, how = line.split()
    while time.monotonic() < float(at):
        pass
    try:
        listener = PidFile(path) if kind == "pid" else listen(Bind("unix", path=path), 8)
    except (LaunchError, ListenError) as error:
        print("no", error, flush=True)
        sys.stdin.readline()
    else:
        print("yes", *listener.inode, flush=True)
        sys.stdin.readline()
        listener.close() if how == "killed" else listener.remove()
    print("over", flush=True)
"""


@contextlib.contextmanager
def contenders(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CONTENDER],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize(
    ("kind", "says"),
    [("unix", "another server listens there; stop it first"), ("pid", "this server is running already")],
)
def test_of_servers_that_begin_in_the_same_instant_one_gets_the_file(tmp_path: Path, kind: str, says: str) -> None:
    path = tmp_path / "s"
    with contenders(3) as processes:
        for number in range(200):
            # What the one before leaves: nothing, or a file that is nobody's.
            how = "killed" if number % 2 else "stopped"
            for process in processes:
                tell(process, f"{kind} {path} {time.monotonic() + 0.002} {how}")
            answers = [said(process) for process in processes]
            winners = [answer for answer in answers if answer.startswith("yes")]
            assert len(winners) == 1, (number, answers)
            assert all(says in answer for answer in set(answers) - {*winners}), answers
            status = path.stat()
            assert winners[0].split()[1:] == [str(status.st_dev), str(status.st_ino)]
            for process in processes:
                tell(process, "")
                assert said(process) == "over\n"
            assert path.exists() is (how == "killed")


def test_a_stopping_server_does_not_remove_the_socket_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "s"
    old = listen(Bind("unix", path=str(path)), 8)
    old.shut_down()
    new = listen(Bind("unix", path=str(path)), 8)
    old.remove()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
    new.remove()
    assert not path.exists()


def test_a_folder_that_somebody_keeps_locked_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_file, "PATIENCE", 0.05)
    listener: Listener = listen(Bind("unix", path=str(tmp_path / "s")), 8)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(ListenError, match="somebody holds a lock of that folder"):
            listen(Bind("unix", path=str(tmp_path / "t")), 8)
        with pytest.raises(BlockingIOError):
            socket_file.remove(listener.path, listener.inode)
    finally:
        os.close(fd)
    listener.remove()
    assert list(tmp_path.iterdir()) == []
