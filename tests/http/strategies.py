"""Requests for hypothesis: well-formed ones with their meaning, and what a careless or hostile hand makes of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from hypothesis import strategies as st

_TOKEN = "!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TARGET = "".join(chr(number) for number in range(0x21, 0x7F) if chr(number) not in "?#")
_VALUE = "".join(chr(number) for number in (*range(0x21, 0x7F), *range(0x80, 0x100)))

methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "FOO", "M-SEARCH"])
methods |= st.text("!#$%&'*+-.^`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=12)
methods = methods.filter(lambda method: method != "CONNECT")
paths = st.text(_TARGET, max_size=20).map(lambda text: "/" + text)
queries = st.none() | st.text(_TARGET + "?", max_size=12)
hosts = st.sampled_from(["h", "h:80", "example.com", "[::1]", "[::1]:8000", "1.2.3.4", "a_b"])
# Those with a meaning to framing, and those that may stand once, are put in on purpose.
_RESERVED = {"host", "content-length", "transfer-encoding", "expect", "connection", "proxy"}
_RESERVED |= {"content-type", "authorization"}
names = st.sampled_from(["X-A", "X-B", "accept", "Cookie", "cookie", "Forwarded", "Upgrade"])
names |= st.text(_TOKEN, min_size=1, max_size=12)
names = names.filter(lambda name: name.lower() not in _RESERVED)
values = st.text(_VALUE + " \t", max_size=20).map(lambda value: value.strip(" \t"))
blanks = st.sampled_from(["", " ", "\t", "  \t "])
bodies = st.binary(max_size=60) | st.sampled_from(
    [b"GET /inside HTTP/1.1\r\nHost: h\r\n\r\n", b"0\r\n\r\n", b"\r\n", b"\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"]
)
extensions = st.sampled_from(["", ";", ";a", ";a=b", ';a="b c"', "; a = \xe9"])
sizes = st.sampled_from(["%x", "%X", "%04x", "%016x"])
trailers = st.lists(st.tuples(names, values), max_size=2)


@dataclass(frozen=True)
class Built:
    """A well-formed request on the wire, and what it says."""

    raw: bytes
    method: str
    target: str
    path: str
    query: str
    fields: dict[str, str]
    body: bytes
    http11: bool
    keep_alive: bool


@st.composite
def requests(draw: st.DrawFn, *, last: bool = True) -> Built:
    """`last`: it may be one behind which the connection closes."""
    method, path, query, host = draw(methods), draw(paths), draw(queries), draw(hosts)
    target = path if query is None else f"{path}?{query}"
    http11 = draw(st.booleans()) or not last
    connection = draw(st.sampled_from([None, "keep-alive", "close", "x"] if last else [None, "keep-alive", "x"]))
    lines = [("Host", host), *draw(st.lists(st.tuples(names, values), max_size=5))]
    if connection is not None:
        lines.append(("Connection", connection))
    body = draw(bodies)
    framing = draw(st.sampled_from(["none", "length", "chunked"] if http11 else ["none", "length"]))
    wire = b""
    if framing == "length":
        lines.append(("Content-Length", str(len(body))))
        wire = body
    elif framing == "chunked":
        lines.append(("Transfer-Encoding", draw(st.sampled_from(["chunked", "Chunked", "CHUNKED"]))))
        wire = _chunked(draw, body)
    else:
        body = b""
    lines = draw(st.permutations(lines))
    head = [f"{method} {target} HTTP/1.{int(http11)}"]
    head += [f"{name}:{draw(blanks)}{value}{draw(blanks)}" for name, value in lines]
    raw = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + wire
    return Built(
        raw=raw,
        method=method,
        target=target,
        path=unquote_to_bytes(path).decode("latin-1"),
        query=query or "",
        fields=_meaning(lines),
        body=body,
        http11=http11,
        keep_alive=connection != "close" and (http11 or connection == "keep-alive"),
    )


def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    places = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=3))})
    wire = b""
    for start, end in itertools.pairwise(places):
        line = draw(sizes) % (end - start) + draw(extensions)
        wire += line.encode("latin-1") + b"\r\n" + body[start:end] + b"\r\n"
    wire += (draw(st.sampled_from(["0", "000"])) + draw(extensions)).encode("latin-1") + b"\r\n"
    for name, value in draw(trailers):
        wire += f"{name}: {value}\r\n".encode("latin-1")
    return wire + b"\r\n"


def _meaning(lines: list[tuple[str, str]]) -> dict[str, str]:
    """The fields as CGI would have them, by way of its own: what a careful reader of the RFCs would do by hand."""
    found: dict[str, list[str]] = {}
    for name, value in lines:
        key = name.upper().replace("-", "_")
        found.setdefault(key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + key, []).append(value)
    return {key: ("; " if key == "HTTP_COOKIE" else ", ").join(values) for key, values in found.items()}


#: Pieces that mean something somewhere: what is put in, or in the place of something else.
PIECES = [
    *(bytes([number]) for number in b'\0\t\n\v\f\r ",-05:;?#_\x7f\x80\xa0\xff'),
    *b"GET POST CONNECT HTTP/1.1 HTTP/1.0 HTTP/2.0 * /smuggled".split(),
    *b"chunked gzip identity close keep-alive 100-continue".split(),
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\n ",
    b"\r\n\t",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff\r\n",
    b"0x5",
    b"+5",
    b"5_0",
    b"\r\nHost: h",
    b"\r\nHost: a b",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0",
    b"\r\nContent-Length: 5, 5",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: chunked, chunked",
    b"\r\nTransfer-Encoding: \x0bchunked",
    b"\r\nTransfer_Encoding: chunked",
    b"\r\nExpect: 100-continue",
    b"\r\nConnection: close",
    b"\r\nConnection: keep-alive",
    b"\r\nUpgrade: h2c",
    b"\r\nX : y",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
]


@st.composite
def mutated(draw: st.DrawFn, raw: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.sampled_from([0, 0, 1, 2, 5, 20])))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3) | st.just(raw[start:end] * 2))
        raw = raw[:start] + piece + raw[end:]
    return raw


@st.composite
def streams(draw: st.DrawFn) -> list[Built]:
    """Well-formed requests, one behind the other; only behind the last may the connection close."""
    count = draw(st.integers(0, 2))
    return [draw(requests(last=False)) for _ in range(count)] + [draw(requests())]


@st.composite
def garbled(draw: st.DrawFn) -> bytes:
    """What was well-formed once."""
    return draw(mutated(b"".join(built.raw for built in draw(streams()))))
