"""The rest of an answer: what its client has not taken yet, and how long the client may take."""

from __future__ import annotations

import fcntl
import logging
import select
import socket
import struct
import termios
import time
from collections.abc import Callable

from django_prefork.config import Config
from django_prefork.http.response import ClientGone
from django_prefork.http.storage import Storage
from django_prefork.worker.outbox import AT_ONCE, Outbox

logger = logging.getLogger("django_prefork")

# Bytes a second below which a transfer is not progress but a siege; asked for once body_timeout, or send_timeout, has
# passed.
RATE = 500
# Bytes of a file that wait in the kernel's memory instead of in the file.
KERNEL = 512 * 1024
# How often that is looked at within send_timeout.
LOOKS = 4
# A client that takes something within this time (seconds) is quick, and waited for: the way over the disk costs twice
# what sending costs. It is waited for once in vain, and for so long in all: the worker is not the client's.
QUICK = 0.002
QUICK_IN_ALL = 0.1
# A client that took nothing just now is not asked again for each small piece, but after so many bytes, or seconds.
AGAIN_BYTES = 64 * 1024
AGAIN_SECONDS = 0.001


class Sending:
    """One answer that was not taken at once.

    `progressed` is called while the worker waits for the client, again and again. True as long as there is something
    left to send. It does not own `sock`.
    """

    __slots__ = (
        "_again_at",
        "_again_bytes",
        "_config",
        "_hurried",
        "_in_kernel",
        "_outbox",
        "_progressed",
        "_slow",
        "_sock",
        "_taken",
        "goes_on",
    )

    def __init__(self, sock: socket.socket, config: Config, storage: Storage, progressed: Callable[[], None]) -> None:
        self._sock = sock
        self._config = config
        self._progressed = progressed
        self._outbox = Outbox(storage)
        self._slow = False  # whether it was waited for in vain
        self._hurried = 0.0  # how long it was waited for (seconds)
        self._again_at = 0.0
        self._again_bytes = 0
        self._in_kernel = 0  # bytes that were sent and that the client had not taken, when last asked
        self._taken = 0.0  # when the client was last seen to take something
        #: Whether the connection goes on when all is sent.
        self.goes_on = False

    def __bool__(self) -> bool:
        return bool(self._outbox)

    # -- while the application runs ------------------------------------------------------------------------------------

    def keep(self, data: bytes | memoryview) -> None:
        """Of what the client did not take just now. Raises `ClientGone`."""
        outbox, rest = self._outbox, memoryview(data)
        if not outbox:
            self._slow = self._hurried > QUICK_IN_ALL
        if not self._slow and not outbox.fits(len(rest)):
            rest = self._hurry(rest)
        try:
            outbox.add(rest)
        except OSError as error:
            logger.error("cannot keep a response for a slow client: %s", error.strerror)
            raise ClientGone(error.errno, "no room for what the client does not take") from None

    def send(self, data: bytes) -> None:
        """What the client takes now, and keep the rest. Raises `ClientGone`."""
        self.keep(data)
        self._again_bytes += len(data)
        now = time.monotonic()
        if now >= self._again_at or self._again_bytes >= AGAIN_BYTES:
            self._push()
            self._again_at, self._again_bytes = now + AGAIN_SECONDS, 0
        self.hold_back()

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """As `send`; the descriptor is closed when all is sent or given up."""
        if count > KERNEL and self._sock.family != socket.AF_UNIX:
            _hold_little(self._sock)
        self._outbox.add_file(descriptor, offset, count)
        self._push()

    def _hurry(self, rest: memoryview) -> memoryview:
        """Send `rest` as long as the client is quick; return what is to be kept when it no longer is, or all fits."""
        while rest and not self._outbox.fits(len(rest)):
            if not self.is_quick():
                self._slow = True
                break
            if self._outbox:
                self._push()
            else:
                try:
                    rest = rest[self._sock.send(rest[:AT_ONCE]) :]
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise ClientGone(error.errno, str(error)) from None
            self._progressed()
        return rest

    def is_quick(self) -> bool:
        """Wait for room, if the client is likely to make some at once; whether it did."""
        if self._hurried > QUICK_IN_ALL:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        began = time.monotonic()
        taken = poll.poll(QUICK * 1000)
        self._hurried += time.monotonic() - began
        return bool(taken)

    def hold_back(self) -> None:
        """Beyond `send_buffer`, the worker's own time is spent: a response that large waits for its client."""
        outbox, most = self._outbox, self._config.send_buffer
        if outbox.held <= most:
            return
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        patience = time.monotonic() + self._config.send_timeout
        while outbox.held > most:
            # In short steps, and saying so at each: it is the client that is slow, and not the application.
            if poll.poll(250) and self._push():
                patience = time.monotonic() + self._config.send_timeout
            elif time.monotonic() >= patience:
                raise ClientGone(None, "took nothing for send_timeout")
            self._progressed()

    def _push(self) -> int:
        try:
            return self._outbox.flush(self._sock)
        except OSError as error:
            raise ClientGone(error.errno, str(error)) from None

    # -- from the loop -------------------------------------------------------------------------------------------------

    def flush(self) -> int:
        """Send what the client takes now; return how many bytes that was. Raises OSError when it is gone."""
        return self._outbox.flush(self._sock)

    def took(self, now: float) -> None:
        """The client took something just now."""
        self._taken = now
        self._in_kernel = _unsent(self._sock)

    def look(self, now: float) -> float:
        """How many seconds the client still has, if it takes nothing until then; to be asked LOOKS times meanwhile.

        The kernel asks for more when a third of what it holds is gone, some MiB perhaps: ask it how much that is.
        """
        timeout = self._config.send_timeout
        before, self._in_kernel = self._in_kernel, _unsent(self._sock)
        if before - self._in_kernel >= RATE * timeout / LOOKS:
            self._taken = now
        return self._taken + timeout - now

    def close(self) -> None:
        """Give up what was not sent; may be called twice."""
        self._outbox.close()


def _unsent(sock: socket.socket) -> int:
    """Bytes that the kernel holds for the client; 0 where it does not tell (no Linux)."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:
        return 0


def _hold_little(sock: socket.socket) -> None:
    """Let the kernel hold KERNEL bytes beyond what is on its way; for who reads nothing it would take 4 MiB."""
    try:
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL)
    except OSError:
        pass  # it is gone already
