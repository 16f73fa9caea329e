"""As much of a worker as its connections need, without a process of its own."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from django_prefork.config import Config
from django_prefork.http.environ import TrustedProxies, template
from django_prefork.http.parser import Limits, RequestParser
from django_prefork.http.storage import Storage
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker import handoff
from django_prefork.worker.connection import Connection
from django_prefork.worker.handoff import Queues
from django_prefork.worker.loop import Loop
from django_prefork.worker.streaming import Courier


@contextlib.contextmanager
def queues_between_siblings() -> Iterator[Queues]:
    descriptors = handoff.make()
    if not descriptors:
        pytest.skip("this system has no SEQPACKET sockets")
    queues = Queues(descriptors)
    yield queues
    queues.close()


class Time:
    """In the place of the module: stands still but for the work that is done."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Host:
    """Serves nothing but empty answers, and remembers of what."""

    def __init__(self, board: Scoreboard, slot: int) -> None:
        self.config = Config.of()
        self.loop = Loop()
        self.limits = Limits()
        self.parser = RequestParser(self.limits)
        self.trusted = TrustedProxies(())
        self.row = board.row(slot)
        self.storage = Storage()
        self.courier = Courier()
        self.later: deque[Connection] = deque()
        self.idle_seconds = 10.0
        self.served: list[str] = []
        self.service: Any = self

    def serve(self, client: Connection, request: Any) -> bool:
        self.served.append(request.target)
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    @property
    def ended(self) -> float:
        """When the last request did: just now, wherever that is asked."""
        return time.monotonic()

    def refused(self, *_: object) -> None:
        pytest.fail("a request was refused")

    def closed(self, connection: Connection) -> None:
        """Nobody keeps count."""

    def welcome(self, sock: socket.socket) -> Connection:
        sock.setblocking(False)
        shared = template(server_name="h", server_port="80", errors=None)
        connection = Connection(self, sock, ("127.0.0.1", "1"), "127.0.0.1:80", shared)
        connection.adopt(b"", 0.0)
        return connection
