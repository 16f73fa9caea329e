"""What one process image leaves to the next one through `exec`: words, and descriptors by number.

Standard library only, and light: the Supervisor reads and writes it. The words travel as JSON in a file without a name,
whose descriptor is named on the Supervisor's command line, or in the environment of a new generation's.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from django_prefork.scoreboard import anonymous_file

#: Names the descriptor to a command that is started as a later generation.
ENVIRONMENT = "PREFORK_INTERNAL_GENERATION"


def leave(words: dict[str, Any], descriptors: list[int]) -> int:
    """Write `words` down and let `descriptors` survive the next exec; return the descriptor to be named to it."""
    fd = anonymous_file("prefork-inheritance")
    os.write(fd, json.dumps(words).encode())
    for descriptor in (fd, *descriptors):
        os.set_inheritable(descriptor, True)
    return fd


def take(fd: int) -> dict[str, Any]:
    """What was left behind `fd`. Raises OSError or ValueError when there is nothing such."""
    try:
        text = os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
    words = json.loads(text)
    if not isinstance(words, dict):
        raise ValueError("not an inheritance")
    return words


def take_generation() -> dict[str, Any] | None:
    """What the Supervisor left to this process, if it started it as a later generation. None the second time."""
    name = os.environ.pop(ENVIRONMENT, None)
    if name is None:
        return None
    words = take(int(name))
    for name in ("board", "life", "control", "stderr"):
        os.set_inheritable(words[name], False)
    for fd in (fd for queue in words["queues"] for fd in queue):
        os.set_inheritable(fd, False)
    for item in words["listeners"]:
        os.set_inheritable(item["fd"], False)
    if words["watched"] is not None:
        os.set_inheritable(words["watched"], False)
    return words


def forget_systemd() -> None:
    """Its sockets and notices are the server's affair, and not that of the application and its subprocesses."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"):
        os.environ.pop(name, None)


def initial_environment() -> dict[str, str]:
    """The environment this process was started with.

    Not `os.environ`: settings may have put into it what a file said then, and a later generation must read it anew.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [pair.partition(b"=") for pair in file.read().split(b"\0") if pair]
    except OSError:  # not Linux
        return dict(os.environ)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def command_line() -> dict[str, Any]:
    """How to start this command again: interpreter, arguments, environment, folder.

    Raises OSError if the current folder was removed.
    """
    return {
        "executable": sys.executable,
        "argv": sys.orig_argv,
        "environment": initial_environment(),
        "folder": _folder(),
    }


def _folder() -> str:
    """The current folder by the name it was entered by: a symlink to a release may point elsewhere next time."""
    folder = os.getcwd()
    named = os.environ.get("PWD", "")
    try:
        return named if os.path.isabs(named) and os.path.samefile(named, folder) else folder
    except OSError:
        return folder


def short(path: str) -> str:
    """`path` for people: from the current folder, if it is in it."""
    try:
        return path.removeprefix(os.path.join(os.getcwd(), ""))
    except OSError:  # it was removed, the path with it
        return path
