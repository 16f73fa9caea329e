"""How connections come to a worker: the listening sockets, and the queues that siblings hand them over by."""

from __future__ import annotations

import errno
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from django_prefork.http import environ
from django_prefork.row import Row
from django_prefork.worker.handoff import Handed, Queue, Queues
from django_prefork.worker.loop import Loop
from django_prefork.worker.waiting import waited

logger = logging.getLogger("django_prefork")

# Out of descriptors: nothing is taken for this long (seconds), and this many idle connections are closed.
PAUSE = 0.2
ROOM = 16
# How many new connections the guard takes at once: it shares the interpreter with the request that runs.
COME_IN = 64

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listening(Protocol):
    """A listening socket as it is handed to a worker; `own`: this server made it, and may shut it down for all."""

    @property
    def socket(self) -> socket.socket: ...
    @property
    def own(self) -> bool: ...
    @property
    def family(self) -> int: ...
    @property
    def bind(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> str: ...

    def close(self) -> None: ...


class Taker(Protocol):
    """Who lives behind the doors."""

    def welcome(self, handed: Handed, template: dict[str, Any]) -> None:
        """Take a connection, new or handed over."""

    def has_room(self) -> bool:
        """Whether there are descriptors for more connections."""

    def make_room(self, count: int) -> None:
        """Close so many connections that nobody misses."""

    def has_idle_siblings(self) -> bool:
        """Whether somebody else could serve at once."""


class Doors:
    """All of one worker's. `queues` is None where the system has no such thing."""

    def __init__(
        self,
        taker: Taker,
        loop: Loop,
        listeners: Sequence[Listening],
        queues: Queues | None,
        extra: dict[str, Any],
        backlog: int,
        row: Row,
    ) -> None:
        """`extra` goes into the environ of every request."""
        self._taker = taker
        self._loop = loop
        self._backlog = backlog
        self.row = row
        self._doors = [_Door(self, listener, extra) for listener in listeners]
        self._mailboxes = [
            _Mailbox(self, queue, begun) for queue, begun in zip(queues or (), (True, False), strict=False)
        ]
        self._templates = {door.listener.bind: door.template for door in self._doors}
        self._last_complaint = 0.0
        #: What came in while there was no room for it in the queue.
        self.left_over: deque[Handed] = deque()
        #: When to open again, if there were no descriptors; 0: they are open.
        self.reopen_at = 0.0

    def open(self) -> None:
        """Let the loop tell of who comes."""
        self.reopen_at = 0.0
        for fd, door in self._entries():
            self._loop.watch_shared(fd, door)

    def _entries(self) -> list[tuple[int, _Door | _Mailbox]]:
        """In the order in which they are to be looked at: waiting requests, new connections, idle ones."""
        doors: list[tuple[int, _Door | _Mailbox]] = [(door.fd, door) for door in self._doors]
        boxes: list[tuple[int, _Door | _Mailbox]] = [(box.fd, box) for box in self._mailboxes]
        return boxes[:1] + doors + boxes[1:]

    def look(self) -> None:
        """Woken by nobody: perhaps who was woken for us died before it came."""
        for _, door in self._entries():
            door.take()

    def look_at_listeners(self) -> None:
        for door in self._doors:
            door.take()

    def come_in(self, now: float) -> list[Handed]:
        """By the guard, while the loop stands still: new connections, to wait in the line where kept ones do.

        There were two lines otherwise, and whoever is free first would have to know which of them is older.
        """
        found: list[Handed] = []
        for door in self._doors:
            for _ in range(COME_IN):
                try:
                    sock, address = door.listener.socket.accept()
                except OSError:
                    break
                self.row.accepted()
                found.append(door.handed(sock, address, now - (waited(sock) or 0.0)))
        return found

    def take_left_over(self) -> None:
        while self.left_over:
            self.handed(self.left_over.popleft())

    def has_room(self) -> bool:
        """Whether there are descriptors left, with some to spare for the application's own."""
        return self._taker.has_room()

    def again(self, fd: int) -> None:
        """Who came before this turn is not to wait for another, with all of that turn's requests: they came later.

        So as many new ones as kept ones are served; but none that a sibling could serve at once.
        """
        if not self._taker.has_idle_siblings():
            self._loop.again(fd)

    def take_ready(self) -> bool:
        """From a sibling, a connection whose request waits. They come before new ones."""
        return bool(self._mailboxes) and self._mailboxes[0].take()

    def empty_queues(self) -> None:
        """Take all that siblings have given away."""
        for box in self._mailboxes:
            while box.take():
                pass

    def close(self, *, stopping: bool) -> None:
        """For good; having taken what may be ours alone to take."""
        for fd, _ in self._entries():
            self._loop.forget(fd)
        self.take_left_over()
        for door in self._doors:
            if stopping:
                # What the kernel has accepted for us is ours to answer; all of it, before any of it takes its time.
                waiting = door.waiting(self._backlog)
                if door.listener.own:
                    # For all processes at once: so the port is free while the last requests run.
                    try:
                        door.listener.socket.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass  # another worker was first
                for sock, address in waiting:
                    self.opened(door, sock, address)
            else:
                # Perhaps it was this worker that was woken for it; the others hear of later ones.
                door.take()
            door.listener.close()
        self._doors.clear()

    # -- what comes in -------------------------------------------------------------------------------------------------

    def opened(self, door: _Door, sock: socket.socket, address: Any) -> None:
        self.row.accepted()
        self._taker.welcome(door.handed(sock, address), door.template)

    def handed(self, handed: Handed) -> None:
        template = self._templates.get(handed.bind)
        if template is None:  # of a listener that a reload has ended
            template = next(iter(self._templates.values()))
        self._taker.welcome(handed, template)

    def no_descriptors(self, error: OSError) -> None:
        """Accepting would only fail again, at once and for ever: pause, and let idle clients go."""
        now = time.monotonic()
        if now - self._last_complaint >= 1.0:
            self._last_complaint = now
            logger.error("cannot accept: %s; raise the descriptor limit", error.strerror)
        for fd, _ in self._entries():
            self._loop.forget(fd)
        self.reopen_at = now + PAUSE
        self._taker.make_room(ROOM)


class _Door:
    """A listening socket."""

    def __init__(self, doors: Doors, listener: Listening, extra: dict[str, Any]) -> None:
        self._doors = doors
        self.listener = listener
        self.fd = listener.socket.fileno()
        self.internet = listener.family != socket.AF_UNIX
        self.template = environ.template(
            # PEP 3333: never empty. A unix socket has neither; the client's Host is what Django uses anyway.
            server_name=listener.host if self.internet else "localhost",
            server_port=listener.port if self.internet else "80",
            errors=sys.stderr,
            **extra,
        )

    def ready(self, mask: int) -> None:
        # Who has come into the queue since this turn began is older than who comes second at this door.
        if (not mask and self._doors.take_ready()) or self.take():
            self._doors.again(self.fd)

    def broken(self) -> None:
        """The log has said it."""

    def take(self) -> bool:
        """One connection: what else waits is for whoever is idle. Whether there was one."""
        try:
            sock, address = self.listener.socket.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                self._doors.no_descriptors(error)
            # Else the client was gone before we came (ECONNABORTED), or the listener is shut down: the server stops.
            return False
        self._doors.opened(self, sock, address)
        return True

    def handed(self, sock: socket.socket, address: Any, since: float = 0.0) -> Handed:
        """A new connection, in the form in which siblings hand theirs over."""
        sock.setblocking(False)
        peer = (address[0], str(address[1])) if self.internet else ("", "")
        return Handed(sock, peer, self.listener.bind, b"", since)

    def waiting(self, most: int) -> list[tuple[socket.socket, Any]]:
        """All that the kernel holds, accepted and not yet served."""
        found: list[tuple[socket.socket, Any]] = []
        try:
            while len(found) < most:
                found.append(self.listener.socket.accept())
        except OSError:
            pass  # none is left, or no descriptor for it
        return found


class _Mailbox:
    """The reading end of a queue. `begun`: of the one where requests wait."""

    def __init__(self, doors: Doors, queue: Queue, begun: bool) -> None:
        self._begun = begun
        self._doors = doors
        self._queue = queue
        self.fd = queue.reader

    def broken(self) -> None:
        """The log has said it."""

    def take(self) -> bool:
        """One connection; whether there was one."""
        if not self._doors.has_room():
            return False  # a connection that arrives without a free descriptor is lost
        handed = self._queue.take()
        if handed is None:
            return False
        self._doors.row.took(self._begun)
        self._doors.handed(handed)
        return True

    def ready(self, mask: int) -> None:
        if self.take():
            if self._begun:
                self._doors.again(self.fd)
        else:
            # Nothing there: a kick, or a sibling was quicker, or it was the last one that was taken before.
            self._doors.look_at_listeners()
