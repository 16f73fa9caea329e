"""The live view of `preforkctl watch`, drawn by rich."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from django_prefork import plain
from django_prefork.asking import ControlError

# How often it looks (seconds).
EVERY = 1.0

Ask = Callable[[dict[str, Any]], dict[str, Any]]

# What s goes through: its name, and the order it means.
_ORDERS: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("slot", lambda worker: worker["slot"]),
    ("age of the request", lambda worker: -(worker["request"]["age"] if worker["request"] else 0.0)),
    ("requests", lambda worker: -worker["requests"]),
    ("connections", lambda worker: -worker["connections"]),
    ("memory", lambda worker: -worker["private"]),
)
_STYLES = {"idle": "green", "busy": "yellow", "streaming": "cyan", "draining": "magenta", "booting": "blue"}
_KEYS = "up/down: choose   enter: stacks   s: sort   q: quit"


class Screen:
    """What is shown, and what the keys do to it."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._order = 0
        self._chosen = 0
        self._stacks = ""
        self._error = ""
        self._told: dict[str, Any] | None = None
        self.done = False

    def look(self) -> None:
        try:
            self._told = self._ask({"do": "status"})["status"]
            self._error = ""
        except ControlError as error:  # it may come back
            self._error = str(error)

    def _workers(self) -> list[dict[str, Any]]:
        return sorted(self._told["workers"], key=_ORDERS[self._order][1]) if self._told else []

    def press(self, key: str) -> None:
        """`key` is a character, "up", "down" or "enter"."""
        workers = self._workers()
        if self._stacks:
            self._stacks = ""  # any key
        elif key in ("q", "\x03"):
            self.done = True
        elif key == "s":
            self._order = (self._order + 1) % len(_ORDERS)
        elif key in ("up", "k"):
            self._chosen = max(0, self._chosen - 1)
        elif key in ("down", "j"):
            self._chosen = min(max(0, len(workers) - 1), self._chosen + 1)
        elif key == "enter" and self._chosen < len(workers):
            try:
                self._stacks = plain.stacks(self._ask({"do": "stacks", "slot": workers[self._chosen]["slot"]}))
            except ControlError as error:
                self._stacks = str(error)

    def draw(self) -> Group:
        parts: list[Any] = []
        if self._error:
            parts.append(Text(self._error, style="bold red"))
        if self._told is not None:
            parts += [
                Text(line, style="bold" if not number else "") for number, line in enumerate(plain.summary(self._told))
            ]
        if self._stacks:
            parts.append(Panel(Text(self._stacks), title="stacks; any key goes back"))
        elif self._told is not None:
            parts += [self._board(), *(Text(line, style="red") for line in plain.restarts(self._told, 5))]
        parts.append(Text(f"{_KEYS}   sorted by {_ORDERS[self._order][0]}", style="dim"))
        return Group(*parts)

    def _board(self) -> Table:
        board = Table(expand=True, box=None, pad_edge=False)
        for head in plain.HEADS:
            last = head == "serving"
            board.add_column(head, no_wrap=True, ratio=1 if last else None, overflow="ellipsis")
        for number, worker in enumerate(self._workers()):
            style = _STYLES.get(worker["state"], "")
            board.add_row(
                *map(Text, plain.cells(worker)), style=f"{style} reverse" if number == self._chosen else style
            )
        return board


def watch(ask: Ask) -> None:
    """Until q is pressed. Raises `ControlError` if there is no terminal, or no server at the beginning."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ControlError("watch needs a terminal; without one, use status.")
    screen = Screen(ask)
    ask({"do": "status"})
    with _keys() as keys, Live(screen.draw(), screen=True, auto_refresh=False) as live:
        again = 0.0
        while not screen.done:
            if time.monotonic() >= again:
                again = time.monotonic() + EVERY
                screen.look()
            live.update(screen.draw(), refresh=True)
            for key in keys(max(0.0, again - time.monotonic())):
                screen.press(key)


_NAMES = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\r": "enter", "\n": "enter"}


@contextmanager
def _keys() -> Iterator[Callable[[float], list[str]]]:
    """A function that waits so many seconds for keys, and returns them."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def read(most: float) -> list[str]:
        if not select.select([fd], [], [], most)[0]:
            return []
        text = os.read(fd, 64).decode("utf-8", "replace")
        return [_NAMES[text]] if text in _NAMES else [_NAMES.get(one, one) for one in text]

    try:
        tty.setcbreak(fd)
        yield read
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
