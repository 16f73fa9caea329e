"""How a command becomes a server: bind, make what is shared, fork the first Arbiter, become the Supervisor.

The child goes on as the first Arbiter, so that nothing is loaded twice; the parent, whose PID is the one people know,
executes the light Supervisor in its place.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import sys
from typing import Any

from django_prefork import inheritance, process
from django_prefork.arbiter import fork_safety, policy
from django_prefork.arbiter.listeners import Listener, ListenError, adopt, join_all, listen_all, wanted
from django_prefork.config import Config
from django_prefork.scoreboard import Scoreboard, anonymous_file
from django_prefork.supervisor import state
from django_prefork.worker import handoff

_PR_SET_CHILD_SUBREAPER = 36
_TIMERS = (
    (signal.ITIMER_REAL, signal.SIGALRM),
    (signal.ITIMER_VIRTUAL, signal.SIGVTALRM),
    (signal.ITIMER_PROF, signal.SIGPROF),
)


class LaunchError(Exception):
    """The server cannot start. The text is one sentence with the remedy."""


class Place:
    """What an Arbiter finds when it begins: what all generations share, and its own two ties to the Supervisor.

    `made` are those of the listeners that this process made. `queues` are the descriptors of `worker.handoff.Queues`.
    `stderr` is the real one, kept aside while a later generation boots; -1 for the first. With `--reload`, `watched` is
    the file for the names of what the code consists of, and `began` when this process did (seconds since 1970); else
    `watched` is None. `is_first` says that no generation has been ready before.
    """

    def __init__(
        self,
        generation: int,
        board: Scoreboard,
        life: int,
        control: int,
        listeners: list[Listener],
        made: list[Listener],
        queues: list[list[int]],
        stderr: int = -1,
        watched: int | None = None,
        began: float = 0.0,
        is_first: bool = True,
    ) -> None:
        self.watched = watched
        self.began = began
        self.is_first = is_first
        self.made = made
        self.queues = queues
        self.generation = generation
        self.board = board
        self.life = life
        self.control = control
        self.listeners = listeners
        self._stderr = stderr

    def leave(self) -> None:
        """In a child that is no worker: what is none of its business."""
        for listener in self.listeners:
            listener.close()
        fds = [self.life, self.control, *(fd for queue in self.queues for fd in queue)]
        for fd in fds if self.watched is None else [*fds, self.watched]:
            os.close(fd)

    def booted(self) -> None:
        """The code is loaded: from here on stderr is the server's, and no more the report of a boot."""
        if self._stderr >= 0:
            process.Quietly(sys.stderr).flush()
            os.dup2(self._stderr, 2)
            os.close(self._stderr)
            self._stderr = -1
        os.write(self.control, b"booted\n")


def launch(config: Config, *, brief: bool = False) -> Place:
    """Return in the Arbiter's process. The calling process becomes the Supervisor and never returns.

    Raises `ListenError` or `LaunchError` in the calling process, having changed nothing.

    `brief` keeps the Supervisor from telling what goes well.
    """
    began = process.began()
    try:
        command = inheritance.command_line()
    except OSError as error:
        raise LaunchError(f"The current folder cannot be found ({error.strerror}); go to one that is there.") from None
    _raise_descriptor_limit()
    if config.umask is not None:
        os.umask(config.umask)
    pid_file = _lock_pid_file(config.pid_file) if config.pid_file else None
    try:
        listeners = listen_all(wanted(config), config.backlog)
    except ListenError:
        if pid_file is not None:
            _give_back(pid_file)
        raise
    if pid_file is not None:
        _write_pid(pid_file, listeners)
    board = Scoreboard.create()
    queues = handoff.make()
    watched = anonymous_file("prefork-watched") if config.reload else None
    life_read, life_write = os.pipe()
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        process.Quietly(stream).flush()
    # Blocked until each side has its own handlers: as PID 1, a signal without one would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = fork_safety.fork()
    if pid == 0:
        os.close(life_write)
        ours.close()
        if pid_file is not None:
            os.close(pid_file["fd"])  # or the lock would outlive the server
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return Place(1, board, life_read, theirs.detach(), listeners, listeners, queues, watched=watched, began=began)
    os.close(life_read)
    theirs.close()
    words: dict[str, Any] = {
        "command": command,
        "board": board.fd,
        "queues": queues,
        "pid_file": pid_file,
        "place": _place_words(config, listeners, [], brief),
        "generations": [
            {"number": 1, "pid": pid, "life": life_write, "control": ours.fileno(), "stage": "BOOTING"},
        ],
        "environment": dict(os.environ),
        "last_number": 1,
        "ever_healthy": False,
        "reload_wanted": False,
        "watched": watched,
        "began": began,
        "descriptors": [
            board.fd,
            life_write,
            ours.fileno(),
            *(fd for queue in queues for fd in queue),
            *(listener.socket.fileno() for listener in listeners),
        ],
    }
    words["descriptors"] += [fd for fd in (watched, pid_file and pid_file["fd"]) if fd is not None]
    _become_supervisor(words)
    raise AssertionError("not reached")


def join(words: dict[str, Any], config: Config, *, brief: bool = False) -> Place:
    """For a process that the Supervisor started as a later generation: take over what is there, and add what is new.

    Raises `ListenError`.
    """
    if config.umask is not None:
        os.umask(config.umask)
    listeners, new = join_all(wanted(config), config.backlog, [adopt(item) for item in words["listeners"]])
    place = json.dumps(_place_words(config, listeners, new, brief)).encode()
    with socket.socket(fileno=os.dup(words["control"])) as control:
        # Descriptors of what we made go along: the Supervisor keeps every socket, for the generations after us.
        socket.send_fds(control, [b"place " + place + b"\n"], [listener.socket.fileno() for listener in new])
    return Place(
        words["generation"],
        Scoreboard(words["board"]),
        words["life"],
        words["control"],
        listeners,
        new,
        words["queues"],
        words["stderr"],
        words["watched"],
        words["began"],
        words["is_first"],
    )


def _place_words(config: Config, listeners: list[Listener], new: list[Listener], brief: bool) -> dict[str, Any]:
    """What the Supervisor knows of a generation's configuration."""
    return {
        "listeners": [{**listener.words(), "new": listener in new} for listener in listeners],
        "brief": brief,
        "drain_delay": config.drain_delay,
        "graceful_timeout": config.graceful_timeout,
        "retire_timeout": policy.retirement(config),
        "boot_timeout": config.boot_timeout,
    }


def _raise_descriptor_limit() -> None:
    """A connection is a descriptor: as many as this user may have, and not as few as a shell gives by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # macOS has a bound of its own below an "unlimited" one


def _become_supervisor(words: dict[str, Any]) -> None:
    if sys.platform == "linux":
        # Kept across exec: the workers of an Arbiter that is killed become the Supervisor's children, and not init's.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for timer, number in _TIMERS:
        # A project's timer (a profiler has one) outlives the exec, its handler does not: the next signal would kill.
        signal.setitimer(timer, 0)
        signal.signal(number, signal.SIG_IGN)  # what is pending goes
        signal.signal(number, signal.SIG_DFL)
    try:
        state.become(sys.executable, words)
    except OSError as error:
        # Nothing has been served; closing the pipe by our end tells the child.
        print(f"cannot start {sys.executable}: {error.strerror}", file=sys.stderr)
        os._exit(1)


def _lock_pid_file(path: str) -> dict[str, Any]:
    """Whoever holds the lock is alive: PIDs alone lie, in containers above all. What the file says stays as it is."""
    fd = -1
    try:
        while True:
            fd, made = _open_pid_file(path)
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise LaunchError(f"The pid file {path} is not a regular file; choose another place.")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                named = os.stat(path, follow_symlinks=False)
                if (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino):
                    break
            except FileNotFoundError:
                pass
            os.close(fd)  # it was a server's that has just ended and removed it: not the file of that name any more
            fd = -1
    except BaseException as error:
        if fd >= 0:
            os.close(fd)
        if isinstance(error, BlockingIOError):
            why = f"The pid file {path} is locked: this server is running already; stop it first."
        elif isinstance(error, OSError) and error.errno == errno.ELOOP:
            why = f"The pid file {path} is a symlink; remove it, or name its target."
        elif isinstance(error, OSError):
            why = f"Cannot write the pid file {path}: {error.strerror}; choose another place."
        else:
            raise
        raise LaunchError(why) from None
    return {"path": os.path.abspath(path), "fd": fd, "inode": [status.st_dev, status.st_ino], "made": made}


def _open_pid_file(path: str) -> tuple[int, bool]:
    """The descriptor, and whether the file was made by that. Raises OSError."""
    # Not through a symlink, which somebody else may have planted in a shared folder.
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, flags), False
        except FileNotFoundError:
            pass
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            pass  # another was first, and its lock decides


def _give_back(pid_file: dict[str, Any]) -> None:
    """The server does not start: the file is as it was."""
    if pid_file["made"]:
        os.unlink(pid_file["path"])
    os.close(pid_file["fd"])


def _write_pid(pid_file: dict[str, Any], listeners: list[Listener]) -> None:
    try:
        os.ftruncate(pid_file["fd"], 0)
        os.pwrite(pid_file["fd"], f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        for listener in listeners:
            listener.remove()
        _give_back(pid_file)
        why = f"Cannot write the pid file {pid_file['path']}: {error.strerror}; choose another place."
        raise LaunchError(why) from None
