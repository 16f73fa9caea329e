"""Heads of responses: fields and status lines, judged and made into bytes.

Most answers begin alike and repeat the same fields, so what was judged once is looked up. What the application says and
must not reach the wire raises `BadResponse`, whose text never holds the value.
"""

from __future__ import annotations

import logging
import re
import time
from email.utils import formatdate
from http import HTTPStatus

logger = logging.getLogger("django_prefork")

# RFC 9110 sections 5.5 and 5.6.2; what does not match would split the response (CVE-2018-1000164).
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_STATUS = re.compile(r"([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")

# What a field means to framing.
PLAIN, LENGTH, CONNECTION, HOP_BY_HOP, SERVER, DATE = range(6)
_KINDS = {
    "content-length": LENGTH,
    "connection": CONNECTION,
    "server": SERVER,
    "date": DATE,
    # PEP 3333: "hop-by-hop" features are the server's alone.
    **dict.fromkeys(("keep-alive", "transfer-encoding", "te", "trailer", "upgrade"), HOP_BY_HOP),
}

# A field line costs 0.6 us to judge and 0.1 us to look up; most answers repeat the same ones.
_CACHED = 512
_CACHED_CHARACTERS = 200
field_lines: dict[tuple[str, str], tuple[bytes, int, int]] = {}


class BadResponse(Exception):
    """The application said something that must not reach the wire. The text names it without the value."""


def field_line(item: tuple[str, str]) -> tuple[bytes, int, int]:
    """Judge one field of the application's; return its line, what it means to framing, and the length it declares."""
    name, value = item
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadResponse("the application's response has a malformed field name")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise BadResponse(f"the application's response has a malformed value in {name}")
    lower = name.lower()
    kind = HOP_BY_HOP if lower.startswith("proxy-") else _KINDS.get(lower, PLAIN)
    if kind == LENGTH and (not (value.isascii() and value.isdigit()) or len(value) > 19):
        raise BadResponse("the application's response has a malformed value in Content-Length")
    length = int(value) if kind == LENGTH else 0
    text = f"Content-Length: {length}\r\n" if kind == LENGTH else f"{name}: {value}\r\n"
    known = (text.encode("latin-1"), kind, length)
    if len(value) <= _CACHED_CHARACTERS:
        if len(field_lines) >= _CACHED:
            field_lines.clear()
        field_lines[item] = known
    return known


_warned: set[str] = set()


def warn_of(name: str) -> None:
    name = name.lower()
    if name not in _warned:
        _warned.add(name)
        logger.warning("hop-by-hop header %s of the application dropped: it is the server's (PEP 3333)", name)


# How responses begin, by status: the status line, Server and Date. Made anew every second.
_beginnings: dict[str, tuple[int, bytes]] = {}
_beginnings_until = 0.0
_date = b""


def beginning_of(status: str) -> tuple[int, bytes]:
    """The status' number, and the first lines of a response with it."""
    if time.monotonic() >= _beginnings_until:
        _new_second()
    return _beginnings.get(status) or _new_beginning(status)


def _new_second() -> None:
    global _beginnings_until, _date
    # By the monotonic clock, so that a wall clock set back does not stop the Date; it is less than a second late.
    _beginnings_until = time.monotonic() + 1.0 - time.time() % 1.0
    _date = f"Date: {formatdate(time.time(), usegmt=True)}\r\n".encode("ascii")
    _beginnings.clear()


def _new_beginning(status: str) -> tuple[int, bytes]:
    match = _STATUS.fullmatch(status)
    if not match or match[1] < "200":
        raise BadResponse("the application's status is not one that HTTP knows")
    line = f"HTTP/1.1 {status if ' ' in status else status + ' '}\r\nServer: django-prefork\r\n".encode("latin-1")
    beginning = (int(match[1]), line + _date)
    if len(_beginnings) < _CACHED:
        _beginnings[status] = beginning
    return beginning


def without(beginning: bytes, name: bytes) -> bytes:
    return b"".join(line for line in beginning.splitlines(keepends=True) if not line.startswith(name))


def _date_line() -> bytes:
    """RFC 9110 section 6.6.1."""
    if time.monotonic() >= _beginnings_until:
        _new_second()
    return _date


def error_response(status: int, *, head_only: bool = False) -> bytes:
    """A whole answer of the server's own: `status`, a word about it, and the end of the connection."""
    reason = HTTPStatus(status).phrase
    body = f"{status} {reason}\n".encode("ascii")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        "Server: django-prefork\r\nConnection: close\r\n"
    ).encode("ascii")
    if status == 503:
        head += b"Retry-After: 1\r\n"
    return head + _date_line() + b"\r\n" + (b"" if head_only else body)
