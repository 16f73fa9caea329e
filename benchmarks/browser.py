"""What a browser sends, for those who are not wrk: the same heads, from the same files."""

from __future__ import annotations

import random
from pathlib import Path

_FILES = Path(__file__).resolve().parent / "wrk"


def head(headers: str, target: str = "/", connection: str = "keep-alive") -> str:
    """The request head in wrk/`headers`.txt, with `<id>` left where each request has ids of its own."""
    text = (_FILES / f"{headers}.txt").read_text()
    return text.replace("<target>", target).replace("<connection>", connection).replace("\n", "\r\n") + "\r\n"


def fresh(template: str) -> bytes:
    """`template` with ids that no request had before."""
    pieces = template.split("<id>")
    text = pieces[0] + "".join(f"{random.getrandbits(64):016x}{piece}" for piece in pieces[1:])
    return text.encode("ascii")


def environ(head: bytes) -> dict[str, str]:
    """What PEP 3333 makes of `head`."""
    first, *lines = head.decode("ascii").rstrip("\r\n").split("\r\n")
    method, target, protocol = first.split(" ")
    path, _, query = target.partition("?")
    fields = (line.split(": ", 1) for line in lines)
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": protocol,
        **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in fields},
    }
