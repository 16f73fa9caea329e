"""The stacks that C code wrote, put in order for people."""

from __future__ import annotations

import re
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import django_prefork

_FRAME = re.compile(r'\s*File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')
_HEAD = re.compile(
    r"(?P<current>Current thread|Thread) (?P<number>0x[0-9a-f]+)(?P<name>.*?) \(most recent call first\):"
)

_INSTALLED = ("/site-packages/", "/dist-packages/")
_LIBRARY = tuple(sysconfig.get_paths()[name].rstrip("/") + "/" for name in ("stdlib", "platstdlib"))
_SERVER = str(Path(django_prefork.__file__).parent.parent) + "/"
_SERVERS_OWN = _SERVER + "django_prefork/"
# From here on outwards it is the server that runs; and where the thread is at home that it has beside the application.
_WORKER = "django_prefork/worker/"
_GUARD = _WORKER + "guard.py"


@dataclass(frozen=True, slots=True)
class Frame:
    """`own`: it is the project's, and neither a library's nor the server's. `line` is "" where it is not known."""

    file: str
    line: str
    function: str
    own: bool


@dataclass(slots=True)
class Thread:
    """`frames` begin with the innermost; `server` are those that called them, and that every request has in common;
    `rest` is what was said in another form."""

    name: str
    current: bool
    frames: list[Frame] = field(default_factory=list)
    server: list[Frame] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)


def threads(text: str) -> list[Thread]:
    """Of `status.stacks()`, the one that was running first. Not a line is lost, whatever it looks like."""
    found: list[Thread] = []
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line.strip()):
            current = head["current"] != "Thread"
            name = head["name"].strip(" []") or ("main thread" if current else f"thread {head['number']}")
            found.append(Thread(name, current))
        elif line.strip():
            if not found:
                found.append(Thread("", True))
            if match := _FRAME.fullmatch(line):
                _append(found[-1], _frame(match["file"], match["line"].strip("?"), match["function"]))
            else:
                found[-1].rest.append(line)
    return sorted(found, key=lambda thread: not thread.current)


def _append(thread: Thread, frame: Frame) -> None:
    if frame.file == _GUARD and not thread.current:
        thread.name = "the server's guard"
    below = bool(thread.server) or frame.file.startswith(_WORKER)
    (thread.server if below else thread.frames).append(frame)


def _frame(file: str, line: str, function: str) -> Frame:
    for folder in _INSTALLED:
        if folder in file:
            return Frame(file.rpartition(folder)[2], line, function, False)
    if file.startswith(_SERVERS_OWN):
        return Frame(file.removeprefix(_SERVER), line, function, False)
    for folder in _LIBRARY:
        if file.startswith(folder):
            return Frame(file.removeprefix(folder), line, function, False)
    return Frame(_short(file), line, function, not file.startswith("<frozen "))


def _short(file: str) -> str:
    """As seen from where it was imported from, which is the project's folder mostly."""
    folders = [folder.rstrip("/") + "/" for folder in sys.path if folder and folder != "/"]
    longest = max((folder for folder in folders if file.startswith(folder)), key=len, default="")
    return file.removeprefix(longest)
