"""What a line of the access log looks like. Pure and quick: formats are parsed once, before the first request."""

from __future__ import annotations

import json
import os
import string
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

# C0, DEL and C1: terminals obey them, and a line feed would forge a line. Quote and backslash end a quoted field.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x22, 0x5C, *range(0x7F, 0xA0))}


def escape(text: str) -> str:
    r"""`text` with control characters (C0, DEL, C1), backslash and double quote as `\xNN`.

    For whatever a client gave; the result stays within its line and its quotes.
    """
    # Nearly all text is harmless, and this finds out ten times as fast as translate() does.
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPES)


class Answer(NamedTuple):
    """What the access log is told about one answer: `length` in bytes, `duration` in seconds, `time` since 1970."""

    method: str
    target: str
    protocol: str
    status: int
    length: int
    duration: float
    peer: str
    environ: Mapping[str, Any]
    slot: int
    generation: int
    time: float


#: Makes a line, without the line feed, of all that an `Answer` has, one by one and in that order.
Line = Callable[..., str]


def _escaped(value: object) -> str:
    """The application may have put anything into its environ, a UUID as the request's id for one."""
    return escape(str(value or "-"))


# What comes again and again, and is looked up: a browser's name takes 0.25 us to look through.
_known: dict[str, str] = {}
_KNOWN = 512


def _learn(value: str) -> str:
    if len(_known) >= _KNOWN:
        _known.clear()
    _known[value] = text = _escaped(value)
    return text


def _queue_time(environ: Mapping[str, Any]) -> float:
    """Seconds that the request waited for a worker."""
    waited = environ.get("prefork.queue_time")
    return waited if isinstance(waited, float) else 0.0


# Apache writes English months, whatever the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Second:
    """As `10/Oct/2000:13:55:36 -0700`: `text` is right from `start` to `end`, and was made then."""

    __slots__ = ("end", "start", "text")

    def __init__(self) -> None:
        self.start = self.end = 0.0
        self.text = ""

    def at(self, moment: float) -> str:
        second = int(moment)
        now = time.localtime(second)
        text = f"{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{time.strftime('%Y:%H:%M:%S %z', now)}"
        self.start, self.end, self.text = float(second), second + 1.0, text
        return text


_second = _Second()


@lru_cache(maxsize=2)
def _iso_time(second: int) -> tuple[str, str]:
    """As `2000-10-10T13:55:36` and `-07:00`, with room for milliseconds between them."""
    text = datetime.fromtimestamp(second).astimezone().isoformat()
    return text[:19], text[19:]


def _once(source: str) -> str:
    """The source of what is hardly ever the same twice, and hardly ever to be escaped."""
    harmless = "it.isprintable() and '\"' not in it and '\\\\' not in it"
    return f"('-' if (it := {source}) is None else it if it and type(it) is str and {harmless} else _escaped(it))"


def _again(source: str) -> str:
    return f"(_known.get(it) or _learn(it) if type(it := {source}) is str else _escaped(it))"


# Each field of a format: how % writes it, and where it comes from, as the source of an expression of what an `Answer`
# has. A line is one function, which calls hardly any other: beside Django, whose code fills the processor's caches, a
# call costs three times as much as alone: with one for each field the log cost 2 us more for a request.
FIELDS: dict[str, tuple[str, str]] = {
    "time": ("%s", "(_second.text if _second.start <= time < _second.end else _second.at(time))"),
    "peer": ("%s", _again("peer")),
    "method": ("%s", _again("method")),
    "target": ("%s", _once("target")),
    "path": ("%s", _once("target.partition('?')[0]")),
    "query": ("%s", _once("target.partition('?')[2]")),
    "protocol": ("%s", _again("protocol")),
    "status": ("%d", "status"),
    "length": ("%d", "length"),
    "duration": ("%.6f", "duration"),
    "duration_ms": ("%.3f", "duration * 1000"),
    "queue_time": ("%.6f", "_queue_time(environ)"),
    "queue_time_ms": ("%.3f", "_queue_time(environ) * 1000"),
    "referer": ("%s", _once("environ.get('HTTP_REFERER')")),
    "user_agent": ("%s", _again("environ.get('HTTP_USER_AGENT')")),
    "host": ("%s", _once("environ.get('HTTP_HOST')")),
    "request_id": ("%s", _once("environ.get('HTTP_X_REQUEST_ID')")),
    "pid": ("%d", "os.getpid()"),
    "slot": ("%d", "slot"),
    "generation": ("%d", "generation"),
}

_COMMON = '{peer} - - [{time}] "{method} {target} {protocol}" {status} {length}'
# The formats that have a name. None: no template, but a function.
FORMATS = {"combined": _COMMON + ' "{referer}" "{user_agent}"', "common": _COMMON, "json": None, "console": None}


def line_maker(name_or_template: str) -> Line:
    """The template's fields must be known."""
    template = FORMATS.get(name_or_template, name_or_template)
    if template is None:
        of_answer = _json_line if name_or_template == "json" else _console_line
        return lambda *values: of_answer(Answer(*values))
    form, values = "", ""
    for literal, field, _, _ in string.Formatter().parse(template):
        form += literal.replace("%", "%%")
        if field:
            form += FIELDS[field][0]
            values += f"{FIELDS[field][1]}, "
    line: Line = _function(f"{form!r} % ({values})")
    return line


def _function(source: str) -> Any:
    return eval(f"lambda {', '.join(Answer._fields)}: {source}", globals())


def _json_line(answer: Answer) -> str:
    get = answer.environ.get
    second = int(answer.time)
    date_and_time, offset = _iso_time(second)
    # In ASCII, and so with every control character escaped.
    return json.dumps(
        {
            "time": f"{date_and_time}.{int((answer.time - second) * 1000):03}{offset}",
            "peer": answer.peer,
            "method": answer.method,
            "path": answer.target,
            "protocol": answer.protocol,
            "status": answer.status,
            "length": answer.length,
            "duration": round(answer.duration, 6),
            "queue_time": round(_queue_time(answer.environ), 6),
            "referer": get("HTTP_REFERER"),
            "user_agent": get("HTTP_USER_AGENT"),
            "request_id": get("HTTP_X_REQUEST_ID"),
            "pid": os.getpid(),
            "slot": answer.slot,
            "generation": answer.generation,
        },
        default=str,
    )


def _console_line(answer: Answer) -> str:
    """As runserver's, and how long it took and which worker it was."""
    now = time.localtime(int(answer.time))
    request = f"{escape(answer.method or '-')} {escape(answer.target or '-')} {escape(answer.protocol or '-')}"
    return (
        f'[{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{time.strftime("%Y %H:%M:%S", now)}] "{request}"'
        f" {answer.status} {answer.length} {answer.duration * 1000:.1f} ms slot {answer.slot}"
    )


_RECORDED = (
    *("method", "target", "path", "query", "protocol", "length", "duration", "peer", "referer", "user_agent"),
    *("host", "request_id", "queue_time", "pid", "slot", "generation"),
)
_recorded = _function(f"{{{', '.join(f'{name!r}: {FIELDS[name][1]}' for name in _RECORDED)}}}")


def record_fields(answer: Answer) -> dict[str, Any]:
    """The fields as attributes of a LogRecord: escaped, since a formatter may write them as they are."""
    return {**_recorded(*answer), "status_code": answer.status}
