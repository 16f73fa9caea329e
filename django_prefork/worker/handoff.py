"""Giving a connection to a sibling: its descriptor, and what was read of it, over a queue that all workers share.

A queue is a pair of SEQPACKET sockets: every worker may write to one end and, while it is idle, read from the other.
Two of them exist: `ready`, where a request is waiting and is served first, and `idle`, for connections that only change
their home. They are made before the first fork and outlive generations.

Linux only: elsewhere there is no SEQPACKET, passing descriptors needs acknowledgements, and connections stay.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from typing import NamedTuple

# The first byte of a message: a generation of another format closes what it cannot read.
FORMAT = 1
# A message without a connection: "look at your doors".
KICK = b"\0"
# Bytes already read that may travel: what a socket buffer holds easily, and more than any head.
TRAVELLING = 64 * 1024
_MESSAGE = TRAVELLING + 4096
# A full queue keeps connections with their owner for a moment; the kernel's default holds 278 of them.
_BUFFER = 8 * 1024 * 1024
_SO_SNDBUFFORCE = 32
_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Handed(NamedTuple):
    """A connection as it arrives: `peer` is address and port, `bind` names its listener, `data` was read already.

    `since` is when its request became ready (monotonic seconds); 0: there was none.
    """

    sock: socket.socket
    peer: tuple[str, str]
    bind: str
    data: bytes
    since: float


class Queue:
    """`descriptors` are the writing and the reading end, as every process inherits them."""

    def __init__(self, descriptors: tuple[int, int]) -> None:
        self._writer = _adopt(descriptors[0], socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reader = _adopt(descriptors[1], socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.writer = descriptors[0]
        self.reader = descriptors[1]

    def give(self, sock: socket.socket, peer: tuple[str, str], bind: str, data: bytes, since: float) -> bool:
        """Put a connection into the queue; whether it is there. If not, it is still the caller's.

        The arguments are those of `Handed`. The caller has taken it out of its loop before, or would go on hearing of
        it, and closes its descriptor after.
        """
        words = json.dumps([peer, bind, since]).encode()
        head = bytes([FORMAT]) + len(words).to_bytes(2, "big") + words
        try:
            socket.send_fds(self._writer, [head, data], [sock.fileno()])
        except OSError:
            # Full (EAGAIN), or too many descriptors under way for an unprivileged sender (ETOOMANYREFS), or no memory.
            return False
        return True

    def kick(self) -> None:
        """Wake one sibling that is idle, to look at all of its doors: whoever was woken for them cannot come."""
        kick(self.writer)

    def take(self) -> Handed | None:
        """The next connection, or None. One that arrives without its descriptor is lost: the kernel has closed it."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._reader, _MESSAGE, 4, _CLOEXEC)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    return None
                raise
            handed = self._read(message, descriptors)
            if handed is not None:
                return handed
            if not message:
                return None  # no writer is left: the server is at its end

    @staticmethod
    def _read(message: bytes, descriptors: list[int]) -> Handed | None:
        if len(descriptors) == 1 and message[:1] == bytes([FORMAT]):
            end = 3 + int.from_bytes(message[1:3], "big")
            (address, port), bind, since = json.loads(message[3:end])
            sock = _adopt(descriptors[0])
            return Handed(sock, (address, port), bind, message[end:], since)
        for descriptor in descriptors:
            os.close(descriptor)
        return None

    def close(self) -> None:
        self._writer.close()
        self._reader.close()


def _adopt(descriptor: int, family: int = -1, kind: int = -1) -> socket.socket:
    """As it is: it does not block."""
    sock = socket.socket(family, kind, fileno=descriptor)
    if socket.getdefaulttimeout() is not None:
        sock.setblocking(False)  # a timeout is what the project wants for its own sockets, and every new object has it
    return sock


def kick(writer: int) -> None:
    """`Queue.kick`, for a process that only has the descriptor."""
    try:
        os.write(writer, KICK)
    except OSError:
        pass  # full: then there is no lack of wake-ups


class Queues:
    """Both of them."""

    def __init__(self, descriptors: list[list[int]]) -> None:
        self.ready, self.idle = (Queue((writer, reader)) for writer, reader in descriptors)

    def __iter__(self) -> Iterator[Queue]:
        return iter((self.ready, self.idle))

    def close(self) -> None:
        self.ready.close()
        self.idle.close()


def make() -> list[list[int]]:
    """New queues, as descriptors for `Queues`; an empty list where the system has no such thing."""
    descriptors: list[list[int]] = []
    for _ in range(2):
        try:
            writer, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # macOS: EPROTONOSUPPORT
            return []
        for sock in (writer, reader):
            sock.setblocking(False)
        try:
            writer.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
        except OSError:  # needs a privilege; then as much as the system allows anyone
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        descriptors.append([writer.detach(), reader.detach()])
    return descriptors
