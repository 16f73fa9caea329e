"""The pieces of a streaming answer: sent as they are produced, but for those that come faster than that pays.

PEP 3333 lets a server hold a block back where it guarantees that it goes out even while the application produces the
next one. The guarantee is a thread: what waits is sent within two ticks, or when the application gives up the GIL after
that. So a stream of 100 MiB in pieces of 8 KiB takes half of the CPU, and an event that comes alone is sent at once.
What a client did not take at once goes on being sent by the same thread, while the application computes or waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

logger = logging.getLogger("django_prefork")

# How often is looked for what waits (seconds): it does so for two of them at most.
TICK = 0.002
# How many bytes are sent together: 100 MiB took 54 ms of CPU in stretches of 128 KiB, 44 in these, and 44 of 512 KiB.
AT_ONCE = 256 * 1024
# sendmsg(2) takes 1024 parts, and a piece has up to three.
PARTS = 1000
# Pieces come fast when so many in a row come within so many seconds each.
FAST = 4
FAST_SECONDS = 0.0005
# While a client takes nothing, it is asked less and less often, but never after more than this (seconds).
SELDOM = 0.008

Parts = Sequence[bytes | memoryview]


class Way(Protocol):
    """A connection, as its stream knows it. What sends raises OSError, `ClientGone` among them."""

    @property
    def behind(self) -> bool:
        """Whether there is something that the client did not take at once."""

    def send_parts(self, parts: Parts, size: int) -> None:
        """By the main thread: all of it, at once or later."""

    def sent(self, count: int) -> None:
        """By the main thread: there were pieces of so many bytes since it last said so."""

    def push(self, parts: list[bytes | memoryview]) -> bool:
        """What the client takes now: of what is behind, then of `parts`, which keeps the rest; whether it took any."""


class Stream:
    """Of one answer. All is called by the main thread, but for `go_on`."""

    __slots__ = (
        "_attended",
        "_batches",
        "_courier",
        "_fast",
        "_held",
        "_last",
        "_lock",
        "_over",
        "_seen",
        "_size",
        "_untold",
        "_waits",
        "_way",
    )

    def __init__(self, way: Way, courier: Courier) -> None:
        self._way = way
        self._courier = courier
        self._lock = threading.Lock()
        self._held: list[bytes | memoryview] = []
        self._size = 0
        self._untold = 0
        self._waits = False  # whether pieces wait for those behind them
        self._attended = False  # whether the courier comes again
        self._over = False
        self._batches = self._seen = 0  # how often what waited was sent by the main thread, and when last looked at
        self._fast = 0
        self._last = 0.0

    def add(self, parts: tuple[bytes, ...], size: int) -> None:
        """The next piece, of `size` bytes. Raises `ClientGone`."""
        with self._lock:
            self._untold += size
            if self._waits:
                self._held += parts
                self._size += size
                if self._size < AT_ONCE and len(self._held) < PARTS:
                    return
                self._send_held()
            elif self._held:  # the client did not take it from the courier
                self._held += parts
                self._size += size
                self._send_held()
            else:
                self._send(parts, size)
                self._judge()
        self._tell()

    def _tell(self) -> None:
        count, self._untold = self._untold, 0
        self._way.sent(count)

    def _judge(self) -> None:
        """Do pieces come so fast that they had better wait, or is the client slow?"""
        now = time.monotonic()
        self._fast = self._fast + 1 if now - self._last < FAST_SECONDS else 0
        self._last = now
        fast = self._fast >= FAST
        if fast or self._way.behind:
            if not self._attended:
                self._attended = self._courier.attend(self)
            if fast:
                self._waits = self._attended
                self._fast = 0

    def end(self, last: bytes) -> None:
        """No more will come: send what waits, and `last`. Raises `ClientGone`."""
        self._courier.leave(self)
        with self._lock:
            self._over = True
            self._untold += len(last)
            if last:
                self._held.append(last)
            if self._held:
                self._size = sum(map(len, self._held))
                self._send_held()
        self._tell()

    def give_up(self) -> None:
        """The connection is about to be closed: its descriptor may soon be another's."""
        self._courier.leave(self)
        with self._lock:
            self._over = True

    def _send_held(self) -> None:
        held, size = self._held, self._size
        self._held, self._size = [], 0
        self._batches += 1
        self._send(held, size)

    def _send(self, parts: Parts, size: int) -> None:
        try:
            self._way.send_parts(parts, size)
        except OSError:
            self._over = True
            raise

    def go_on(self) -> bool | None:
        """By the courier: send what has waited. Whether the client took something; None: nothing to come again for."""
        if self._waits and self._seen != self._batches:
            self._seen = self._batches
            return True  # what waits has not done so for a whole tick
        with self._lock:
            waited, self._waits = self._waits, False
            took = False
            if not self._over:
                try:
                    took = self._way.push(self._held)
                except OSError:
                    self._over = True  # the main thread will find out by itself
            self._size = sum(map(len, self._held))
            self._attended = not self._over and (waited or bool(self._held) or self._way.behind)
            return (took or waited) if self._attended else None

    def forked(self) -> None:
        """In a child of the application's: the answer is not its own, and the courier's hold on it nobody's."""
        self._lock = threading.Lock()
        self._over = True
        self._waits = False
        self._held, self._size = [], 0


class Courier:
    """The thread of one worker that sends while the application does not. It is made when it is first needed."""

    def __init__(self) -> None:
        self._stream: Stream | None = None  # written by the main thread alone
        self._wake = threading.Event()
        self._begun = False

    def attend(self, stream: Stream) -> bool:
        """Come for what `stream` holds, until there is nothing; False: there is no thread to be had."""
        if not self._begun:
            try:
                threading.Thread(target=self._run, name="prefork-courier", daemon=True).start()
            except RuntimeError as error:
                logger.debug("no thread to send streams with: %s", error)
                return False
            self._begun = True
        self._stream = stream
        self._wake.set()
        return True

    def leave(self, stream: Stream) -> None:
        """`stream` is over."""
        if self._stream is stream:
            self._stream = None

    def forked(self) -> None:
        """In a child of the application's, where the thread is not."""
        if self._stream is not None:
            self._stream.forked()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            pause = TICK
            while (stream := self._stream) is not None:
                time.sleep(pause)
                took = stream.go_on()
                if took is None:
                    break
                pause = TICK if took else min(2 * pause, SELDOM)
            stream = None  # or it would live on while this waits


def without(parts: Parts, count: int) -> list[bytes | memoryview]:
    """What is left of `parts` when its first `count` bytes are gone."""
    for index, part in enumerate(parts):
        if count < len(part):
            return [memoryview(part)[count:], *parts[index + 1 :]] if count else list(parts[index:])
        count -= len(part)
    return []
