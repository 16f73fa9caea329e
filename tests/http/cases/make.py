"""Raw requests, and the cases made of them.

A case that is to be refused has a well-formed request behind it, which must never be served; one that is to be
accepted has one behind it that must be.
"""

from __future__ import annotations

from typing import Any

from tests.http.judge import Case

_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
_NEXT = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
CONTROLS = [bytes([number]) for number in (*range(0x20), 0x7F)]


def refuse(name: str, raw: bytes, *status: int, **more: Any) -> Case:
    return Case(
        id=name,
        raw=raw + _SMUGGLED,
        expect="reject",
        status=status,
        conn="close",
        **{"must_not_serve": "/smuggled", **more},
    )


def accept(name: str, raw: bytes, path: str | None = None, **more: Any) -> Case:
    """`conn` says whether the request behind it must be served ("open", the default) or must not ("close")."""
    if more.get("conn") == "close":
        return Case(id=name, raw=raw + _SMUGGLED, expect="accept", path=path, must_not_serve="/smuggled", **more)
    more.setdefault("conn", "open")
    more.setdefault("responses", 2)
    return Case(id=name, raw=raw + _NEXT, expect="accept", path=path, **more)


def get(*fields: bytes, line: bytes = b"GET /x HTTP/1.1", host: bytes | None = b"Host: h") -> bytes:
    """A request without a body: `line`, Host, `fields`, the empty line."""
    lines = [line, *([host] if host is not None else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(body: bytes, *fields: bytes, line: bytes = b"POST /x HTTP/1.1") -> bytes:
    return get(*fields, line=line) + body


def chunked(*rest: bytes) -> bytes:
    """A request with a chunked body, of which `rest` is what follows the head."""
    return post(b"".join(rest), b"Transfer-Encoding: chunked")


def printable(name: bytes) -> str:
    return "".join(chr(c) if 0x21 <= c < 0x7F else f"%{c:02x}" for c in name)[:40]
