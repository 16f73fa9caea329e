"""Answers that wait for those behind them, in the kernel, for a millisecond or so.

Sending wakes the client; where that is on the same machine, as most proxies are, the sender pays for it: some 10 us if
the client's CPU has fallen asleep since the last answer, next to nothing if it is up. So a worker that has several
requests to serve, each of them short, has the kernel hold their answers back (MSG_MORE), and then lets all go in a row.
A request to Django costs 118 us that way instead of 128. The first client of a turn waits for the others; on the whole
they wait less.

The kernel sends what it holds when the socket is closed, so also when the worker is killed (unless the client has sent
more that nobody has read, and is reset), and after 200 ms or so by itself. Where a request takes long after all, the
guard lets go of it (`push`): without a guard, nothing is held.
"""

from __future__ import annotations

import socket

# An answer waits so long (seconds), and while one more request is served.
HOLD = 0.001
# Requests must take so long each (seconds): the client of shorter ones does not fall asleep, and to hold an answer back
# costs 1 us. Longer ones gain too little.
SHORTEST = 0.00003
LONGEST = HOLD / 2
# After a request that took so long, or nearly (seconds), nothing waits for CALM seconds: there may be more of its kind.
SLOW = 0.005
CALM = 0.25

_MORE = getattr(socket, "MSG_MORE", 0)  # Linux


class Cork:
    """Of one loop. All is called by the thread that serves, but for `push`; times are monotonic seconds.

    Between `begin` and `end`, which frame a turn of the loop, answers may be held back while it is `on`; but not the
    one to the descriptor `last`, which nothing came behind when the turn began.
    """

    __slots__ = ("_calm_at", "_due", "_held", "guarded", "last", "on", "wanted")

    def __init__(self) -> None:
        self.on = False
        self.last = -1
        #: Whether it might be on, and whether it may be: whether somebody calls `push`.
        self.wanted = self.guarded = False
        self._held: list[socket.socket] = []
        self._due = 0.0
        self._calm_at = 0.0

    def begin(self, now: float, events: list[tuple[int, int]], pace: float) -> float:
        """A turn that has `events` to serve, behind one where each took `pace`; returns when `look` is to be called."""
        if _MORE and len(events) > 1 and SHORTEST <= pace <= LONGEST:
            self.wanted = True
            self.on = self.guarded and now >= self._calm_at
            self.last = events[-1][0]
        self._due = now + HOLD
        return self._due

    def look(self, now: float) -> float:
        """The turn goes on; returns when to look again."""
        if now > self._due:
            self._judge(now)
            self.pull()
            self._due = now + HOLD
        return self._due

    def end(self, now: float) -> None:
        """The turn is over."""
        self._judge(now)
        self.on = False
        if self._held:
            self.pull()

    def _judge(self, now: float) -> None:
        if now - (self._due - HOLD) > SLOW:  # since the last look
            self.on = False
            self._calm_at = max(self._calm_at, now + CALM)

    def send(self, sock: socket.socket, data: bytes) -> int:
        """As of a socket, for an answer as a whole; to be called while it is `on`."""
        count = sock.send(data, _MORE)
        self._held.append(sock)
        return count

    def pull(self) -> None:
        """Let go of all."""
        self.push()
        self._held.clear()

    def push(self) -> None:
        """The same, by any thread."""
        for sock in tuple(self._held):
            try:
                # It is on already; to say so once more is what makes the kernel send (tcp(7): TCP_NODELAY).
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                pass  # closed meanwhile: that sends, too, unless it was given to a sibling, and that comes after this


#: For connections whose answers cannot wait: a unix socket knows no MSG_MORE. Never on.
UNCORKED = Cork()
