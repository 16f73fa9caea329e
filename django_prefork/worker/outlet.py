"""The way out to one client: what an answer is written to, and what becomes of the part that is not taken at once."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from django_prefork.config import Config
from django_prefork.http.response import ClientGone
from django_prefork.http.storage import Storage
from django_prefork.row import Row
from django_prefork.worker.cork import Cork
from django_prefork.worker.sending import Sending
from django_prefork.worker.service import Service
from django_prefork.worker.streaming import Courier, Parts, Stream, without


class Supply(Protocol):
    """What a worker has for all its clients' answers."""

    config: Config
    row: Row
    service: Service
    storage: Storage
    courier: Courier


class Outlet:
    """`http.response.Sink`, and `streaming.Way`. All that send raise `ClientGone` where nobody is there to take it."""

    __slots__ = ("_cork", "_row", "_sending", "_stream", "fd", "sock", "worker")

    def __init__(self, worker: Supply, sock: socket.socket, cork: Cork) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._cork = cork
        self.worker = worker
        self._row = worker.row
        self._sending: Sending | None = None  # what the client did not take at once
        self._stream: Stream | None = None  # while the answer comes in pieces

    def give_up(self) -> None:
        """Nothing goes out any more."""
        if self._stream is not None:
            self._stream.give_up()
            self._stream = None
        self._all_sent()

    # -- as a sink -----------------------------------------------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        """As `send`, and it may wait for answers to others."""
        if self._sending:
            self.send(data)
            return
        self._row.sent += len(data)
        cork = self._cork
        try:
            count = cork.send(self.sock, data) if cork.on and self.fd != cork.last else self.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            raise ClientGone(error.errno, str(error)) from None
        if count != len(data):
            self._keep((memoryview(data)[count:],))

    def send(self, data: bytes, more: bytes = b"") -> None:
        """The client takes what it takes, the loop sends the rest."""
        size = len(data) + len(more)
        self._row.sent += size
        if self._sending:
            self._sending.send(data)
            if more:
                self._sending.send(more)
            return
        try:
            count = self.sock.sendmsg((data, more)) if more else self.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            raise ClientGone(error.errno, str(error)) from None
        if count != size:
            self._keep(without((data, more), count))

    def stream(self) -> Callable[[tuple[bytes, ...], int], None]:
        """Each piece goes out at once, or a moment later together with those behind it."""
        stream = self._stream = Stream(self, self.worker.courier)
        return stream.add

    def end_stream(self, last: bytes = b"") -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end(last)
        elif last:
            self.send(last)

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        self._row.sent += count
        sending = self._sending if self._sending is not None else self._begin_sending()
        sending.send_file(descriptor, offset, count)

    def progressed(self) -> None:
        self.worker.service.progressed()

    # -- as a way for streams ------------------------------------------------------------------------------------------

    def sent(self, count: int) -> None:
        self._row.sent += count
        self.progressed()

    @property
    def behind(self) -> bool:
        return bool(self._sending)

    def send_parts(self, parts: Parts, size: int) -> None:
        sending = self._sending
        if sending:
            sending.send(b"".join(parts))
            return
        while True:
            try:
                count = self.sock.sendmsg(parts)
            except BlockingIOError:
                count = 0
            except OSError as error:
                raise ClientGone(error.errno, str(error)) from None
            if count == size:
                return
            parts, size = without(parts, count), size - count
            if sending is None:
                sending = self._begin_sending()
            if not sending.is_quick():
                break
        self._keep((b"".join(parts),))

    def push(self, parts: list[bytes | memoryview]) -> bool:
        taken = self._sending.flush() if self._sending else 0
        if parts and not self._sending:
            try:
                count = self.sock.sendmsg(parts)
            except BlockingIOError:
                count = 0
            taken += count
            parts[:] = without(parts, count)
        return taken > 0

    # -- what is not taken at once -------------------------------------------------------------------------------------

    def _keep(self, rest: Parts) -> None:
        """What the client did not take."""
        sending = self._sending if self._sending is not None else self._begin_sending()
        for part in rest:
            sending.keep(part)
        sending.hold_back()

    def _begin_sending(self) -> Sending:
        self._sending = Sending(self.sock, self.worker.config, self.worker.storage, self.progressed)
        return self._sending

    def _all_sent(self) -> None:
        if self._sending is not None:
            self._sending.close()
            self._sending = None
