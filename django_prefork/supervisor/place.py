"""What is kept for all generations: listening sockets, hand-over queues, the PID file; and the limits that hold."""

from __future__ import annotations

import os
from typing import Any

from django_prefork import socket_file
from django_prefork.supervisor.generation import Generation
from django_prefork.supervisor.system import say


class Place:
    """`words` are listeners and limits as a generation tells them (see `arbiter/launch.py`).

    `queues` are those by which workers hand connections over: only kept, for later generations.
    """

    def __init__(self, words: dict[str, Any], queues: list[list[int]], pid_file: dict[str, Any] | None) -> None:
        self.queues = queues
        self.pid_file = pid_file
        self._move_in(words)

    def _move_in(self, words: dict[str, Any]) -> None:
        self.words = words
        self.listeners: list[dict[str, Any]] = words["listeners"]
        #: Whether to say what goes well.
        self.brief: bool = words["brief"]
        # In seconds.
        self.drain_delay: float = words["drain_delay"]
        self.graceful_timeout: float = words["graceful_timeout"]
        self.retire_timeout: float = words["retire_timeout"]
        self.boot_timeout: float = words["boot_timeout"]

    def descriptors(self) -> list[int]:
        found = [fd for queue in self.queues for fd in queue]
        found += [item["fd"] for item in self.listeners]
        return found if self.pid_file is None else [*found, self.pid_file["fd"]]

    def take_over(self, generation: Generation) -> None:
        """It is ready: keep the listeners that it made, and let go those that it does not want."""
        if generation.place is None:
            return
        words, generation.place = generation.place, None
        fresh = iter(generation.given)
        for item in words["listeners"]:
            if item["new"]:
                item["fd"] = next(fresh)
                item["new"] = False
        generation.given = []
        kept = {item["fd"] for item in words["listeners"]}
        for item in self.listeners:
            if item["fd"] not in kept:
                say("INFO", f"no longer listening on {item['bind']}")
                remove_socket(item)
                os.close(item["fd"])
        self._move_in(words)

    def turn_down(self, generation: Generation) -> None:
        """It failed: what it made is wanted by nobody."""
        if generation.place is None:
            return
        made = (item for item in generation.place["listeners"] if item["new"])
        for fd, item in zip(generation.given, made, strict=False):
            remove_socket(item)
            os.close(fd)
        generation.given = []

    def clean_up(self) -> None:
        """Unlink what is ours, and only while it is: somebody may have put a file of the same name there since."""
        for item in self.listeners:
            remove_socket(item)
        if self.pid_file is not None:
            remove_pid_file(self.pid_file)


def remove_socket(listener: dict[str, Any]) -> None:
    """Its file, before the socket is closed."""
    if listener["own"] and listener["path"]:
        try:
            socket_file.remove(listener["path"], tuple(listener["inode"]))
        except OSError as error:
            say("WARNING", f"cannot remove {listener['path']}: {error.strerror}")


def remove_pid_file(pid_file: dict[str, Any]) -> None:
    """While we hold its lock, nobody else makes one in its place; unless somebody has taken it away."""
    try:
        status = os.lstat(pid_file["path"])
        if [status.st_dev, status.st_ino] == pid_file["inode"]:
            os.unlink(pid_file["path"])
    except FileNotFoundError:
        pass
    except OSError as error:
        say("WARNING", f"cannot remove {pid_file['path']}: {error.strerror}")
