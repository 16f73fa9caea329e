"""Files, folders and pipes that are gone, full, somebody else's, or not what they seem."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.tools import need, need_root, serve, status
from tests.harness import PATIENCE, ROOT, Clients, Server, eventually, send


def test_places_that_cannot_be_had_are_one_sentence_each(tmp_path: Path) -> None:
    """All at once, since each takes its time to start."""
    (tmp_path / "precious").write_text("x")
    (tmp_path / "link").symlink_to("precious")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    cases = {
        ("--pid-file", f"{tmp_path}/link"): "is a symlink; remove it",
        ("--pid-file", f"{tmp_path}/pipe"): "is not a regular file",
        ("--pid-file", f"{tmp_path}/folder"): "Cannot write the pid file .*: Is a directory",
        ("--pid-file", "/proc/prefork.pid"): "Cannot write the pid file /proc/prefork.pid: ",
        ("--pid-file", f"{tmp_path}/none/pid"): "Cannot write the pid file .*: No such file or directory",
        ("--bind", f"unix:{tmp_path}/{'long' * 30}"): "the path of a unix socket has at most 107 bytes",
        ("--bind", f"unix:{tmp_path}/none/s"): "that folder does not exist; make it first",
        ("--bind", f"unix:{tmp_path}/folder"): "there is a file of that name",
        ("--bind", "192.0.2.1:0"): "this machine does not have that address",
    }
    with contextlib.ExitStack() as stack:
        servers = []
        for arguments in cases:
            bind = None if "--bind" in arguments else "127.0.0.1:0"
            servers.append(stack.enter_context(serve("--workers", "1", *arguments, bind=bind)))
        for server, says in zip(servers, cases.values(), strict=True):
            assert server.wait() == 1, server.log
            assert server.count(says) == 1 and "Traceback" not in server.log, (says, server.log)
    assert (tmp_path / "precious").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe", "precious"]


def test_a_pid_file_with_the_pid_of_somebody_else_is_stale(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{os.getpid()} and more digits than ours\n")
    with serve("--workers", "1", "--pid-file", str(pid_file)).ready() as server:
        assert pid_file.read_text() == f"{server.pid}\n"
        assert server.stop() == 0
    assert not pid_file.exists()


def ask(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        send(sock, "/", "Connection: close")
        return status(sock)


def test_what_has_taken_the_place_of_our_files_is_left_alone(tmp_path: Path) -> None:
    path, pid_file = tmp_path / "s", tmp_path / "pid"
    with serve("--workers", "1", "--bind", f"unix:{path}", "--pid-file", str(pid_file)).ready() as server:
        assert ask(path) == 200
        path.unlink()
        pid_file.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            pid_file.write_text("another's")
            # The listeners that are left are served on.
            assert server.get()[0] == 200
            assert server.stop() == 0
        assert path.is_socket() and pid_file.read_text() == "another's"


def test_a_reload_makes_a_deleted_socket_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serve("--workers", "1", "--bind", f"unix:{path}").ready() as server:
        path.unlink()
        server.kill(signal.SIGHUP)
        server.ready(2)
        server.wait_for("arbiter gen=1 leaves: retired")
        assert server.get()[0] == 200
        assert path.exists()
        assert ask(path) == 200


def test_without_standard_streams_it_serves(tmp_path: Path) -> None:
    script = "import os, sys; os.closerange(0, 3); os.execv(sys.argv[1], sys.argv[1:])"
    path = tmp_path / "s"
    arguments = ("--workers", "1", "--access-log", "-")
    with serve(*arguments, bind=f"unix:{path}", prefix=(sys.executable, "-c", script)) as server:
        eventually(lambda: accepts(path) or server.process.poll() is not None, "it listens")
        assert ask(path) == 200
        server.kill(signal.SIGTERM)
        assert server.wait() == 0
    assert not path.exists()


class Pipe:
    """Where a server's log goes: read until it is ready, and then not, or by nobody any more."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, 4096)
        script = f"import os, sys; [os.dup2({self.write}, fd) for fd in (1, 2)]; os.execv(sys.argv[1], sys.argv[1:])"
        self.prefix = (sys.executable, "-c", script)

    def wait_for(self, words: bytes) -> None:
        said = b""
        while words not in said:
            said += os.read(self.read, 4096)

    def stop_up(self) -> None:
        with open(f"/proc/self/fd/{self.write}", "wb", buffering=0, opener=_nonblocking) as file:
            while file.write(b"x" * 4096):  # None: it is full
                pass

    def break_off(self) -> None:
        os.close(self.read)
        self.read = -1

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.write)
        if self.read >= 0:
            os.close(self.read)


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


HOW = pytest.mark.parametrize("how", ["stop_up", "break_off"])


@contextlib.contextmanager
def unheard(how: str, path: Path, *arguments: str) -> Iterator[Server]:
    """A server at `path` whose log nobody takes from when it is ready on; it has to stop all the same."""
    with Pipe() as pipe, serve(*arguments, bind=f"unix:{path}", prefix=pipe.prefix, pass_fds=(pipe.write,)) as server:
        pipe.wait_for(b"ready: ")
        getattr(pipe, how)()
        try:
            yield server
        finally:
            server.kill(signal.SIGTERM)
            assert server.wait() == 0


@HOW
def test_a_log_that_nobody_takes_does_no_harm(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s"
    with unheard(how, path, "--workers", "2", "--access-log", "-") as server:
        for _ in range(20):
            assert ask(path) == 200
        worker = max(server.processes())
        server.kill(signal.SIGKILL, worker)
        eventually(lambda: worker not in server.processes() and len(server.processes()) == 4, "it is replaced")
        assert ask(path) == 200


@HOW
def test_a_log_that_nobody_takes_does_not_keep_a_lost_arbiter_from_being_replaced(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s"
    # A boot that waited for its log would do so for longer than we wait for it.
    with unheard(how, path, "--workers", "1", "--boot-timeout", f"{2 * PATIENCE}") as server:
        _, arbiter, worker = sorted(server.processes())
        server.kill(signal.SIGKILL, arbiter)
        eventually(lambda: worker not in server.processes(), "the old worker gives way to a new one")
        assert ask(path) == 200


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return path.exists() and sock.connect_ex(str(path)) == 0


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size`."""
    need_root()
    mount, umount = need("mount", "mount"), need("umount", "mount")
    folder.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run([umount, str(folder)], check=True)


def test_a_full_disk_and_a_lost_folder_cost_log_lines_and_no_request(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "64k") as disk:
        (disk / "logs").mkdir()
        log = disk / "logs" / "access.log"
        with serve("--workers", "1", "--access-log", str(log)).ready() as server:
            (disk / "ballast").write_bytes(b"x" * 56 * 1024)
            with contextlib.suppress(OSError):
                (disk / "more").write_bytes(b"x" * 65536)
            for _ in range(60):
                assert server.get("/?" + "x" * 200)[0] == 200
            server.wait_for("access log: line dropped: No space left on device")
            assert server.count("line dropped") == 1
            # There is room again, and the log has been moved away with its folder.
            (disk / "ballast").unlink()
            (disk / "more").unlink(missing_ok=True)
            (disk / "logs").rename(disk / "old")
            server.kill(signal.SIGUSR1)
            server.wait_for("cannot reopen .*access.log, going on with the old file: No such file or directory")
            assert server.get("/after")[0] == 200
            eventually(lambda: "/after" in (disk / "old" / "access.log").read_text(), "the old file goes on")
            assert server.stop() == 0


def test_no_folder_for_temporary_files_is_needed_to_serve_and_to_watch() -> None:
    """Neither /dev/shm nor /tmp can be written to: workers are watched, killed and replaced all the same."""
    need_root()
    if any(ROOT.is_relative_to(folder) for folder in ("/dev/shm", "/tmp", "/var/tmp")):
        pytest.skip("needs a checkout that is in no temporary folder")
    script = (
        "for folder in /dev/shm /tmp /var/tmp /usr/tmp; do"
        ' [ -d "$folder" ] && { mount -t tmpfs -o ro none "$folder" || exit 1; }; done; exec "$@"'
    )
    prefix = (need("unshare", "util-linux"), "--mount", "sh", "-c", script, "sh")
    folder = Path("/")  # what Python falls back to
    arguments = ("--workers", "2", "--timeout", "1")
    with serve(
        *arguments, prefix=prefix, folder=folder, errors="killed|serving|the application failed"
    ).ready() as server:
        asked = server.ask("/sleep?s=60")
        assert status(asked) in (0, 500, 503, 504)  # closed, or told so
        server.wait_for(r"in trouble$")
        server.full_strength(2)
        server.kill(signal.SIGHUP)
        server.ready(2)
        server.wait_for("arbiter gen=1 leaves: retired")
        with Clients(server, 2, keep_alive=True) as kept:
            kept.some_more()
        assert kept.failures == []
