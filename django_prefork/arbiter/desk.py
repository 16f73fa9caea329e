"""Where people ask: the status listener and the control socket, in the Arbiter's own loop.

Whoever comes here must never keep the Arbiter from its workers. So nothing blocks; there are few connections, and when
one more comes than there may be, the oldest goes, which has had its time; each has seconds and kilobytes; and a turn of
the loop gives the desk a few milliseconds, and what is left comes at the next.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import time
from collections.abc import Iterator
from typing import Protocol

from django_prefork.arbiter.listeners import Listener

logger = logging.getLogger("django_prefork")

# Connections at a time; one has so long for all it wants (seconds).
MOST = 64
PATIENCE = 5.0
# Bytes of answers that all of them together may leave waiting.
HELD = 4 * 1024 * 1024
# What a turn of the loop may spend here (seconds).
TURN = 0.005
# How often it looks whether an answer is there that others have to give (seconds).
LOOK = 0.005
# Without a descriptor to accept with, the desk is closed for so long (seconds).
PAUSE = 1.0

_RECEIVE = 16 * 1024
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Talk(Protocol):
    """One connection's conversation, whatever its protocol."""

    def heard(self, data: bytes) -> bytes | None:
        """What the client said; the whole answer, or None: it is not there yet."""

    @property
    def waits(self) -> bool:
        """All was heard; the answer is on its way."""

    def look(self) -> bytes | None:
        """Asked at each turn of the loop; the answer, if it is there now."""


class Greeter(Protocol):
    def __call__(self, listener: Listener, sock: socket.socket, /) -> Talk | None: ...


class Visitor:
    """One connection at the desk."""

    def __init__(self, sock: socket.socket, talk: Talk, deadline: float) -> None:
        self.sock = sock
        self.talk = talk
        self.deadline = deadline
        self.answer: memoryview | None = None


class Desk:
    """`listeners` are its own; `greet` begins the talk with whoever came by one of them, or None: not with them."""

    def __init__(self, listeners: list[Listener], greet: Greeter) -> None:
        self._listeners = {listener.socket.fileno(): listener for listener in listeners}
        self._greet = greet
        # By descriptor, the oldest first.
        self._visitors: dict[int, Visitor] = {}
        self._closed_until = 0.0

    def close(self) -> None:
        """For good, in this process."""
        for visitor in list(self._visitors.values()):
            self._dismiss(visitor)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def descriptors(self) -> list[int]:
        """All that a worker must not inherit."""
        return [*self._listeners, *self._visitors]

    def interests(self, now: float, *, takes: bool) -> Iterator[tuple[int, int]]:
        """What to poll for. `takes`: whether newcomers are let in."""
        if takes and now >= self._closed_until:
            for fd in self._listeners:
                yield fd, select.POLLIN
        for fd, visitor in self._visitors.items():
            yield fd, select.POLLIN if visitor.answer is None else select.POLLOUT

    def serve(self, ready: list[tuple[int, int]]) -> None:
        """What the poll has found; what of it is not ours is passed over."""
        end = time.monotonic() + TURN
        # Who is here before who comes, but not for ever: the one that matters may have come last.
        found = [fd for fd, _ in ready]
        for fd in found:
            visitor = self._visitors.get(fd)
            if visitor is not None:
                self._attend(visitor)
                if time.monotonic() >= end:
                    break
        end += TURN
        for fd in found:
            listener = self._listeners.get(fd)
            while listener is not None and time.monotonic() < end:
                if not self._accept(listener):
                    break

    def look(self, now: float) -> float:
        """Send who is late away, and see to those who wait; return when to look again (monotonic)."""
        for visitor in list(self._visitors.values()):
            if now >= visitor.deadline:
                self._dismiss(visitor)
            elif visitor.answer is None:
                self._say(visitor, visitor.talk.look())
        if any(visitor.talk.waits for visitor in self._visitors.values()):
            return now + LOOK
        return min((visitor.deadline for visitor in self._visitors.values()), default=now + PATIENCE)

    def _accept(self, listener: Listener) -> bool:
        try:
            sock, _ = listener.socket.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                logger.error("cannot accept at %s: %s; raise the descriptor limit", listener.bind, error.strerror)
                self._closed_until = time.monotonic() + PAUSE
                return False
            return True  # it was gone before we came
        sock.setblocking(False)
        talk = self._greet(listener, sock)
        if talk is None:
            sock.close()
            return True
        while len(self._visitors) >= MOST:
            self._dismiss(next(iter(self._visitors.values())))
        visitor = self._visitors[sock.fileno()] = Visitor(sock, talk, time.monotonic() + PATIENCE)
        # What it wants has mostly come with it.
        self._attend(visitor)
        return True

    def _attend(self, visitor: Visitor) -> None:
        if visitor.answer is not None:
            self._send(visitor)
            return
        try:
            data = visitor.sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._say(visitor, visitor.talk.heard(data))
        else:
            self._dismiss(visitor)

    def _say(self, visitor: Visitor, answer: bytes | None) -> None:
        if answer is not None:
            visitor.answer = memoryview(answer)
            self._send(visitor)
            held = sum(len(one.answer) for one in self._visitors.values() if one.answer is not None)
            while held > HELD:
                oldest = next(one for one in self._visitors.values() if one.answer is not None)
                held -= len(oldest.answer or b"")
                self._dismiss(oldest)

    def _send(self, visitor: Visitor) -> None:
        assert visitor.answer is not None
        try:
            visitor.answer = visitor.answer[visitor.sock.send(visitor.answer) :]
        except BlockingIOError:
            return
        except OSError:
            self._dismiss(visitor)
            return
        if not visitor.answer:
            self._dismiss(visitor)

    def _dismiss(self, visitor: Visitor) -> None:
        self._visitors.pop(visitor.sock.fileno(), None)
        visitor.sock.close()
