"""What the Arbiter has at a fork and no worker will have, or what all of them would share: said once each.

A fork copies one thread of many, and every descriptor. Nothing of the server's own is ever listed: it has no thread
here, its sockets have no name on the other side, and who asks at its desk is known.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

logger = logging.getLogger("django_prefork")

_MOMENT = 0.2  # seconds

_THREAD = (
    "thread %r (%s) was started before the fork and is missing in the workers: "
    "start it in a receiver of django_prefork.signals.post_fork"
)
_NATIVE = (
    "native threads (%s) were started before the fork and are missing in the workers: "
    "make what needs them in a receiver of django_prefork.signals.post_fork"
)
_CONNECTION = (
    "a connection to %s was opened before the fork and would be shared by the workers: "
    "open it in a receiver of django_prefork.signals.post_fork"
)


class Audit:
    """Remembers what it has said: a thread is one by name and code, a connection by its peer."""

    def __init__(self) -> None:
        #: Descriptors of the Arbiter's own that have a peer: who asks at its desk.
        self.ours: Callable[[], Container[int]] = tuple
        self._said: set[object] = set()
        self._unsaid: list[tuple[object, ...]] = []

    def look(self) -> None:
        """Note what is new since the last look. Never raises: it is advice."""
        try:
            self._threads()
            self._native_threads()
            self._connections()
        except Exception:
            logger.debug("the audit before a fork failed", exc_info=True)

    def tell(self) -> None:
        """Warn of what was noted. The first fork, of the Arbiter itself, comes before there is a log."""
        for words in self._unsaid:
            logger.warning(*words)
        self._unsaid.clear()

    def _note(self, key: object, *words: object) -> None:
        if key not in self._said:
            self._said.add(key)
            self._unsaid.append(words)

    def _threads(self) -> None:
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                runs = _runs(thread)
                self._note((thread.name, runs), _THREAD, thread.name, runs)

    def _native_threads(self) -> None:
        """Those of libraries, which Python knows nothing of."""
        names = _native_threads()
        if names and ("native", *names) not in self._said:
            # A thread of Python's that ends is for a moment one that Python does not know any more.
            time.sleep(_MOMENT)
            names = _native_threads()
            if names:
                self._note(("native", *names), _NATIVE, ", ".join(names))

    def _connections(self) -> None:
        for peer in connected(self.ours()):
            self._note(("peer", peer), _CONNECTION, peer)


def _runs(thread: threading.Thread) -> str:
    """What the thread executes, and the module it is of: `shop.export.run, of shop.export`, as far as it is known."""
    target: Any = getattr(thread, "_target", None) or getattr(thread, "function", None) or type(thread)
    target = getattr(target, "func", target)  # functools.partial
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    module = getattr(target, "__module__", None) or type(target).__module__
    if module.partition(".")[0] in sys.stdlib_module_names:
        # An executor's, a timer's, a queue's: who is behind it stands further in, if it is at work.
        behind = _project_module(thread)
        return f"{module}.{name}" + (f", of {behind}" if behind else "")
    return f"{module}.{name}"


def _project_module(thread: threading.Thread) -> str:
    """The outermost module on the thread's stack that is not Python's own."""
    found = ""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module and module.partition(".")[0] not in sys.stdlib_module_names:
            found = module
        frame = frame.f_back
    return found


def _native_threads() -> list[str]:
    """Their names, sorted; Linux only."""
    # This process's own was forked: its main thread may still think that it has its parent's number.
    python = {os.getpid(), *(thread.native_id for thread in threading.enumerate())}
    if None in python:
        return []  # one that is about to start: at the next look
    names = []
    for task in Path("/proc/self/task").glob("*"):
        if int(task.name) not in python:
            try:
                names.append((task / "comm").read_text().strip())
            except OSError:
                pass  # it has ended
    return sorted(names)


def connected(ours: Container[int] = ()) -> list[str]:
    """The peers of this process's connected stream sockets: `10.0.0.5:6379`, or the path of a unix socket.

    Without those that have no name, which are pairs within the process or the server's own, without standard streams,
    which may be sockets, and without datagrams (syslog, statsd): these do not mix.
    """
    peers = set()
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for name in os.listdir(folder):
        fd = int(name)
        try:
            if fd < 3 or fd in ours or not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            blocks = os.get_blocking(fd)
            with socket.socket(fileno=os.dup(fd)) as sock:
                os.set_blocking(fd, blocks)  # after socket.setdefaulttimeout(), to look at it is to change it
                if sock.type != socket.SOCK_DGRAM and (peer := _named(sock.getpeername())):
                    peers.add(peer)
        except OSError:
            pass  # closed meanwhile, or it listens
    return sorted(peers)


def _named(address: Any) -> str:
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if isinstance(address, bytes):  # Linux's abstract names
        return "@" + address.lstrip(b"\0").decode("ascii", "replace") if address else ""
    return str(address)
