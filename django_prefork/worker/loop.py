"""Who is ready, who is late. Knows no HTTP."""

from __future__ import annotations

import heapq
import logging
import math
import select
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from django_prefork.worker.cork import Cork

logger = logging.getLogger("django_prefork")

# The bits of readiness, as epoll has them; what else is in a mask (an error, a hang-up) is found out by reading.
READ = 1
WRITE = 4

# Whoever slept at least so long (seconds) before it was told of something heard of it at once.
SLEPT = 0.0005
# A turn that has taken so long (seconds) and has more to serve has more than its share.
SURPLUS = 0.0005
# After a turn that took so long (seconds), who was not in it comes first in the next one.
LONG = 0.0003
# Where requests took no longer than this each (seconds) in the turn before, those of a turn are read first, so many at
# a time, and then served. Code that runs several times in a row is in the processor's caches but for the first time,
# and an application pushes all other code out of them: to read requests and make their environs takes 6 us less each
# beside Django (of 140), 0.5 beside hello-world. Where they take longer that is nothing.
SHORT = 0.0005
TOGETHER = 16

#: The deadline of what has none, or is no more.
FOREVER = math.inf


class Watched(Protocol):
    """What a loop serves. Each is registered under its descriptor."""

    def ready(self, mask: int) -> None:
        """`mask` may be stale: the descriptor's number may have been another's when it was made. Must not block.

        It is 0 for who asked to be served `again`.
        """

    def broken(self) -> None:
        """It raised what it should not: a mistake of the server's, which must cost one client at most."""


class InLine(Watched, Protocol):
    """What has read a request that it has still to serve."""

    fd: int

    def turn(self) -> None:
        """It is its turn, unless it has given away meanwhile what it had read."""


class Late(Protocol):
    """What has a `deadline` (monotonic seconds), which it may move at will. `queued` is the loop's."""

    deadline: float
    queued: float

    def late(self, now: float) -> None:
        """The deadline has passed."""

    def broken(self) -> None:
        """As of `Watched`."""


class _Epoll:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.poll = self._epoll.poll
        self.fileno = self._epoll.fileno
        self.close = self._epoll.close
        self.add = self._epoll.register
        self.change = self._epoll.modify
        self.remove = self._epoll.unregister

    def add_shared(self, fd: int) -> None:
        """Of all the processes that wait for `fd` the kernel wakes one."""
        self._epoll.register(fd, READ | select.EPOLLEXCLUSIVE)


class _Selector:
    """kqueue, where there is no epoll: by way of the standard library's selectors."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.close = self._selector.close

    def fileno(self) -> int:
        return self._selector.fileno()

    @staticmethod
    def _events(mask: int) -> int:
        return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)

    def add(self, fd: int, mask: int) -> None:
        self._selector.register(fd, self._events(mask))

    def change(self, fd: int, mask: int) -> None:
        self._selector.modify(fd, self._events(mask))

    def remove(self, fd: int) -> None:
        self._selector.unregister(fd)

    def add_shared(self, fd: int) -> None:
        self.add(fd, READ)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        return [
            (key.fd, (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0))
            for key, events in self._selector.select(timeout)
        ]


T = TypeVar("T", bound=Watched)


class Loop:
    """Descriptors and deadlines of one worker. `wait()` is one turn."""

    def __init__(self) -> None:
        self._poller: _Epoll | _Selector = _Epoll() if hasattr(select, "epoll") else _Selector()
        self._watched: dict[int, Watched] = {}
        self._shared: set[int] = set()
        # Who is to be looked at when: one set for each tenth of a second, so that leaving costs as little as coming.
        self._queues: dict[float, set[Late]] = {}
        self._times: list[float] = []
        self.now = time.monotonic()
        # Of this turn: what there is to serve, and how much may be served `again` besides; None: not yet counted.
        self._events: list[tuple[int, int]] = []
        self._more: int | None = None
        # Who was served in the last turn, if that took long; and how long each did (seconds).
        self._before: dict[int, int] = {}
        self._pace = FOREVER
        #: What is ready in this turn was not ready before that (monotonic seconds).
        self.since = self.now
        self._came_back = self.now
        #: What holds answers back while there is more to serve.
        self.cork = Cork()
        self._enough = FOREVER
        #: Whether who is `ready` may read a request and stand in line with it, instead of serving it at once.
        self.reads_ahead = False
        #: Who does, the first one first; all are served within the turn. The guard may look at it meanwhile.
        self.line: deque[InLine] = deque()
        #: Called with the descriptors that are still to be served, the last one first, when those before took long.
        self.surplus: Callable[[list[int]], None] | None = None

    def watch(self, fd: int, watched: Watched, mask: int) -> None:
        self._poller.add(fd, mask)
        self._watched[fd] = watched

    def watch_shared(self, fd: int, watched: Watched) -> None:
        """A descriptor that other processes wait for as well: a listening socket."""
        self._poller.add_shared(fd)
        self._watched[fd] = watched
        self._shared.add(fd)

    def change(self, fd: int, mask: int) -> None:
        self._poller.change(fd, mask)

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed, or others that share its file would go on waking this loop."""
        if self._watched.pop(fd, None) is not None:
            self._poller.remove(fd)
            self._shared.discard(fd)

    def expect(self, late: Late) -> None:
        """See to `late.deadline`. Needed where it is before `late.queued`; it may move away unsaid."""
        self.release(late)
        when = late.queued = math.ceil(late.deadline * 10) / 10
        queue = self._queues.get(when)
        if queue is None:
            queue = self._queues[when] = set()
            heapq.heappush(self._times, when)
        queue.add(late)

    def release(self, late: Late) -> None:
        """It is done: keep no hold on it."""
        if late.queued != FOREVER:
            self._queues[late.queued].discard(late)
            late.queued = FOREVER

    def wait(self, most: float) -> int:
        """Serve what is ready, waiting for it until the next deadline or at most `most` seconds; then what is late.

        Returns how much was ready.
        """
        went = time.monotonic()
        if self._times:
            most = min(most, max(0.0, self._times[0] - went))
        events = self._poller.poll(most)
        if self._before and len(events) > 1:
            events = self._longest_first(events)
        self._events = events
        # Who was ready by then was in time, however long serving them takes: lateness is judged by this moment.
        now = self.now = time.monotonic()
        self.since = now if now - went > SLEPT else self._came_back
        self._came_back = now
        watched, cork = self._watched, self.cork
        self._more = None
        self._enough = now + SURPLUS if len(events) > 1 and self.surplus is not None else FOREVER
        look = min(self._enough, cork.begin(now, events, self._pace))
        line, read = self.line, now
        self.reads_ahead = len(events) > 1 and self._pace <= SHORT
        for at, (fd, mask) in enumerate(events):
            # Who comes in over a shared descriptor is served at once, and those in line were here before.
            if line and (len(line) >= TOGETHER or fd in self._shared):
                look = self._serve_line(events, at, look)
            # Something took its time that was not reading: what was served, or a body, or an answer that was sent on.
            if self.now > read:
                if line:
                    look = self._serve_line(events, at, look)
                read = self.now
                if read > look:
                    look = self._look(events, at)
            who = watched.get(fd)
            if who is not None:  # else: closed by an earlier event of this turn
                try:
                    who.ready(mask)
                except Exception:
                    self._broken(who)
        if line:
            self._serve_line(events, len(events), look)
        self.reads_ahead = False
        if events:
            self._pace = (self.now - now) / len(events)
            cork.end(self.now)
        self._before = dict(events) if self.now - now > LONG else {}
        while self._times and self._times[0] <= now:
            for late in self._queues.pop(heapq.heappop(self._times)):
                late.queued = FOREVER
                if late.deadline <= now:
                    try:
                        late.late(now)
                    except Exception:
                        self._broken(late)
                elif late.deadline != FOREVER:
                    self.expect(late)
        return len(events)

    def _serve_line(self, events: list[tuple[int, int]], at: int, look: float) -> float:
        """Serve all that stand in it, in a turn that has come to `at` of its `events`; returns when to look again."""
        line = self.line
        while line:
            if self.now > look:
                look = self._look(events, at)
            who = line.popleft()
            try:
                who.turn()
            except Exception:
                self._broken(who)
        return look

    def _longest_first(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Who came during the last turn, and then who was served in it.

        epoll has it the other way round. Who is served last asks again too late for the next turn, and would be the
        last in the one behind it, too: under load it would be served in every second turn only.
        """
        before = self._before
        first = len(events)
        while first and events[first - 1][0] not in before:
            first -= 1
        return events[first:] + events[:first]

    def _look(self, events: list[tuple[int, int]], at: int) -> float:
        """The turn takes long: it has those in line still to serve, and `events` from `at` on; when to look again."""
        due = self.cork.look(self.now)
        if self.surplus is not None and self.now > self._enough:
            self.surplus([fd for fd, _ in reversed(events[at:])] + [who.fd for who in reversed(self.line)])
            self._enough = self.now + SURPLUS
        return min(self._enough, due)

    def again(self, fd: int) -> None:
        """By who shares its descriptor, is being served and may have more that came before this turn.

        It is served once more behind all others of the turn, with a mask of 0; but what is shared is served no more
        often in a turn, all of it together, than what is not: else in the next turn.
        """
        if self._more is None:
            own = sum(1 for each, _ in self._events if each not in self._shared)
            self._more = own - (len(self._events) - own)
        if self._more > 0:
            self._more -= 1
            self._events.append((fd, 0))

    def peek(self) -> list[tuple[Watched, int]]:
        """Who is ready, without serving and without waiting: for the guard, while the loop stands still."""
        watched = self._watched
        return [(who, mask) for fd, mask in self._poller.poll(0) if (who := watched.get(fd)) is not None]

    def watched(self, fd: int) -> Watched | None:
        return self._watched.get(fd)

    def guard(self, who: T, call: Callable[[T], None]) -> None:
        """Call it; a mistake in it costs `who` alone."""
        try:
            call(who)
        except Exception:
            self._broken(who)

    @staticmethod
    def _broken(who: Watched | Late) -> None:
        try:
            logger.exception("a mistake of the server's: please report it")
        finally:
            who.broken()

    def close(self) -> None:
        self._poller.close()


class Wakeup:
    """The wake-up descriptor: that it was written to is all that matters."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read

    def broken(self) -> None:
        """The log has said it."""

    def ready(self, mask: int) -> None:
        try:
            self._read()
        except BlockingIOError:
            pass
