"""What a line of the access log looks like. Pure and quick: formats are parsed once, before the first request."""

from __future__ import annotations

import json
import os
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

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


class Asked(Protocol):
    """A request, as far as the log tells of it; `fields` is its environ, into which anybody may have put anything."""

    method: str
    target: str
    http11: bool
    fields: dict[str, Any]


class Unread:
    """Stands for what never became a request: all that is known is who sent it."""

    method = target = "-"
    http11 = True

    def __init__(self, peer: str) -> None:
        self.fields: dict[str, Any] = {"REMOTE_ADDR": peer}


#: Makes a line, with its line feed, of what `ANSWER` names, one by one and in that order.
Line = Callable[[Asked, int, int, float, int, int, float], bytes]
#: The request, the answer's status and bytes of body, how long it took (seconds), who gave it, and when (since 1970).
ANSWER = ("request", "status", "length", "duration", "slot", "generation", "moment")


def _escaped(value: object) -> str:
    """The application may have put a UUID there as the request's id, for one."""
    return escape(str(value or "-"))


def _protocol(request: Asked) -> str:
    return "HTTP/1.1" if request.http11 else "HTTP/1.0"


def _queue_time(get: Callable[[str], Any]) -> float:
    """Seconds that the request waited for a worker."""
    waited = get("prefork.queue_time")
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


@dataclass(frozen=True)
class Field:
    """What a format may name. `source` is an expression of what `ANSWER` names, and of `get`, which asks the environ.

    `spec` is how a number is written, empty for as it is; None for text that may be missing, and may hold anything.
    """

    source: str
    spec: str | None = None


# Of a template: a literal, and the field behind it.
Pieces = list[tuple[str, Field | None]]

FIELDS: dict[str, Field] = {
    "time": Field("_second.text if _second.start <= moment < _second.end else _second.at(moment)", spec=""),
    "peer": Field("get('REMOTE_ADDR')"),
    "method": Field("request.method"),
    "target": Field("request.target"),
    "path": Field("request.target.partition('?')[0]"),
    "query": Field("request.target.partition('?')[2]"),
    "protocol": Field("'HTTP/1.1' if request.http11 else 'HTTP/1.0'", spec=""),
    "status": Field("status", spec=""),
    "length": Field("length", spec=""),
    "duration": Field("duration", spec=":.6f"),
    "duration_ms": Field("duration * 1000", spec=":.3f"),
    "queue_time": Field("_queue_time(get)", spec=":.6f"),
    "queue_time_ms": Field("_queue_time(get) * 1000", spec=":.3f"),
    "referer": Field("get('HTTP_REFERER')"),
    "user_agent": Field("get('HTTP_USER_AGENT')"),
    "host": Field("get('HTTP_HOST')"),
    "request_id": Field("get('HTTP_X_REQUEST_ID')"),
    "pid": Field("os.getpid()", spec=""),
    "slot": Field("slot", spec=""),
    "generation": Field("generation", spec=""),
}

_COMMON = '{peer} - - [{time}] "{method} {target} {protocol}" {status} {length}'
# The formats that have a name. None: no template, but a function.
FORMATS = {"combined": _COMMON + ' "{referer}" "{user_agent}"', "common": _COMMON, "json": None, "console": None}


def line_maker(name_or_template: str) -> Line:
    """The template's fields must be known."""
    template = FORMATS.get(name_or_template, name_or_template)
    if template is None:
        return _json_line if name_or_template == "json" else _console_line
    pieces = [(literal, FIELDS[name] if name else None) for literal, name, _, _ in string.Formatter().parse(template)]
    pieces.append(("\n", None))
    own = sum(map(_suspicious, (literal for literal, _ in pieces)))
    line: Line = _compiled(_LINE, plain=_f_string(pieces, _plain), escaped=_f_string(pieces, _escape), own=own)
    return line


# A line is one function, which hardly calls another: beside Django, whose code fills the processor's caches, a call
# costs three times as much as alone. And it is looked through as a whole: nearly always nothing is suspicious in it but
# what the template brings. To look through each field, and know some by heart, cost a request to Django 2 us more.
_LINE = """
def line({parameters}):
    get = request.fields.get
    try:
        data = {plain}.encode()
    except UnicodeEncodeError:
        pass
    else:
        if len(data.translate(None, _SUSPICIOUS)) == len(data) - {own}:
            return data
    return {escaped}.encode("utf-8", "backslashreplace")
"""
# What `escape` looks for. In UTF-8 the C1 among them are a part of others as well.
_SUSPICIOUS = bytes(_ESCAPES)


def _compiled(source: str, **parts: object) -> Any:
    made: dict[str, Any] = {}
    exec(source.format(parameters=", ".join(ANSWER), **parts), globals(), made)
    return made.popitem()[1]


def _f_string(pieces: Pieces, text: Callable[[Field], str]) -> str:
    """The source of one, `text` for what text its fields have."""
    source = ""
    for literal, field in pieces:
        source += literal.encode("unicode_escape").decode().replace('"', '\\"').replace("{", "{{").replace("}", "}}")
        if field is not None:
            source += f"{{{text(field)}!s}}" if field.spec is None else f"{{({field.source}){field.spec}}}"
    return f'f"{source}"'


def _plain(field: Field) -> str:
    return f"{field.source} or '-'"


def _escape(field: Field) -> str:
    return f"_escaped({field.source})"


def _suspicious(literal: str) -> int:
    data = literal.encode("utf-8", "backslashreplace")
    return len(data) - len(data.translate(None, _SUSPICIOUS))


def _json_line(
    request: Asked, status: int, length: int, duration: float, slot: int, generation: int, moment: float
) -> bytes:
    get = request.fields.get
    second = int(moment)
    date_and_time, offset = _iso_time(second)
    text = json.dumps(
        {
            "time": f"{date_and_time}.{int((moment - second) * 1000):03}{offset}",
            "peer": get("REMOTE_ADDR", ""),
            "method": request.method,
            "path": request.target,
            "protocol": _protocol(request),
            "status": status,
            "length": length,
            "duration": round(duration, 6),
            "queue_time": round(_queue_time(get), 6),
            "referer": get("HTTP_REFERER"),
            "user_agent": get("HTTP_USER_AGENT"),
            "request_id": get("HTTP_X_REQUEST_ID"),
            "pid": os.getpid(),
            "slot": slot,
            "generation": generation,
        },
        default=str,
    )
    return text.encode("ascii") + b"\n"  # it is, so that control characters are escaped, too


def _console_line(
    request: Asked, status: int, length: int, duration: float, slot: int, generation: int, moment: float
) -> bytes:
    """As runserver's, and how long it took and which worker it was."""
    now = time.localtime(int(moment))
    date_and_time = f"{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{time.strftime('%Y %H:%M:%S', now)}"
    asked = f"{_escaped(request.method)} {_escaped(request.target)} {_protocol(request)}"
    took = f"{duration * 1000:.1f} ms"
    return f'[{date_and_time}] "{asked}" {status} {length} {took} slot {slot}\n'.encode("utf-8", "backslashreplace")


_RECORD = """
def record({parameters}):
    get = request.fields.get
    return {{'status_code': status, {fields}}}
"""
# But for the times: a LogRecord has its own, and what formats it can calculate.
_RECORDED = (
    *("method", "target", "path", "query", "protocol", "length", "duration", "peer", "referer", "user_agent"),
    *("host", "request_id", "queue_time", "pid", "slot", "generation"),
)
#: The fields as attributes of a LogRecord: escaped, since a formatter may write them as they are.
record_fields: Callable[..., dict[str, Any]] = _compiled(
    _RECORD,
    fields=", ".join(
        f"{name!r}: {field.source if field.spec is not None else _escape(field)}"
        for name, field in FIELDS.items()
        if name in _RECORDED
    ),
)
