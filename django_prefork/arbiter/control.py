"""What the control socket answers: one request a connection, a line of JSON each way.

The socket's file is its owner's alone, and whoever comes by it has to be that user, or root, by the kernel's word.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from django_prefork.arbiter.listeners import Listener
from django_prefork.arbiter.stacks import Stacks
from django_prefork.layout import SLOTS
from django_prefork.scoreboard import Scoreboard
from django_prefork.snapshot import snapshot_of

logger = logging.getLogger("django_prefork")

# Bytes that a request may have.
_MOST = 4096
# How long the stacks of workers are waited for (seconds); a worker that is stopped does not give any.
_STACKS_SECONDS = 2.0


class Control:
    """Of one Arbiter. `tell` says something to the Supervisor."""

    def __init__(
        self, board: Scoreboard, listeners: Sequence[Listener], stacks: Stacks, tell: Callable[[str], None]
    ) -> None:
        self._board = board
        self._listeners = listeners
        self._stacks = stacks
        self._tell = tell

    def greet(self, sock: socket.socket) -> ControlTalk | None:
        """None: that is somebody else's user."""
        who = _user_of(sock)
        if who is not None and who not in (0, os.geteuid()):
            logger.warning("turned away at the control socket: uid=%d is neither root nor the server's own", who)
            return None
        return ControlTalk(self, "preforkctl" if who is None else f"preforkctl uid={who}")

    def answer(self, request: dict[str, Any], who: str) -> dict[str, Any] | Callable[[], dict[str, Any] | None]:
        """The answer, or what is to be asked for it again and again."""
        what = request.get("do")
        if what == "status":
            return {"status": snapshot_of(self._board, self._listeners).as_dict()}
        if what == "stacks":
            return self._ask_for_stacks(request.get("slot"))
        if self._board.stopping:
            return {"error": "The server stops already."}
        if what == "scale":
            count = request.get("workers")
            if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= SLOTS // 2:
                return {"error": f"The number of workers is a whole number from 1 to {SLOTS // 2}."}
            self._tell(f"steer scale:{count} {who}")
            return {"said": f"There are to be {count} workers; a reload goes back to what is configured."}
        if self._board.draining and what != "stop":
            return {"error": "The server drains: it can only be stopped."}
        if what == "reload":
            self._tell(f"steer reload {who}")
            return {"said": "The reload begins; the old code serves until the new is ready."}
        if what == "drain":
            self._tell(f"steer drain {who}")
            return {"said": "The server is not ready any more, and closes each connection after its answer."}
        if what == "stop":
            self._tell(f"steer stop {who}")
            return {"said": "The server stops."}
        return {"error": "This server does not know what is asked of it; is it of another version?"}

    def _ask_for_stacks(self, slot: object) -> dict[str, Any] | Callable[[], dict[str, Any] | None]:
        """Of one worker; None: of all."""
        asked = time.monotonic()
        slots = [reading.slot for reading in self._board.occupied()]
        if slot is not None:
            if slot not in slots:
                return {"error": f"There is no worker in slot {slot}."}
            slots = [slot] if isinstance(slot, int) else []
        for one in slots:
            if not self._stacks.ask(one, asked):
                self._tell(f"stacks {one}")  # of another generation

        def look() -> dict[str, Any] | None:
            found = {one: text for one in slots for when, text in [self._board.stacks(one)] if when >= asked}
            if len(found) == len(slots) or time.monotonic() - asked >= _STACKS_SECONDS:
                return {"stacks": found, "missing": [one for one in slots if one not in found]}
            return None

        return look


class ControlTalk:
    """`desk.Talk` by lines of JSON."""

    def __init__(self, control: Control, who: str) -> None:
        self._control = control
        self._who = who
        self._heard = b""
        self._ask_again: Callable[[], dict[str, Any] | None] | None = None

    def heard(self, data: bytes) -> bytes | None:
        self._heard += data
        if self._ask_again is not None:
            return None
        if b"\n" not in self._heard:
            return _line({"error": "That is too long."}) if len(self._heard) > _MOST else None
        try:
            request = json.loads(self._heard.partition(b"\n")[0])
        except ValueError:
            request = None
        if not isinstance(request, dict):
            return _line({"error": "That is no JSON object."})
        answer = self._control.answer(request, self._who)
        if isinstance(answer, dict):
            return _line(answer)
        self._ask_again = answer
        return None

    @property
    def waits(self) -> bool:
        return self._ask_again is not None

    def look(self) -> bytes | None:
        answer = self._ask_again() if self._ask_again is not None else None
        return None if answer is None else _line(answer)


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _user_of(sock: socket.socket) -> int | None:
    """Whose process is at the other end; None where the kernel does not tell (no Linux): its mode holds there."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(uid)
