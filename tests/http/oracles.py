"""What must hold for any bytes; for the property tests and for the fuzzer.

Each oracle raises AssertionError, or lets pass whatever else the parser should not have raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import h11

from tests.http.reader import Read, byte_by_byte, cut_at, whole

#: Where h11 refuses what we accept, by its own words, and why we may. Everything else is a finding.
STRICTER = {
    # It takes an empty line for an empty request; RFC 9112 section 2.2 asks to skip at least one.
    "no request line received": "empty lines before the request line",
    # It judges a trailer by the rules of the header field of that name; we discard trailers (RFC 9110 section 6.5.1).
    "bad Content-Length": "a trailer called Content-Length",
    "multiple Transfer-Encoding headers": "trailers called Transfer-Encoding",
    "Only Transfer-Encoding: chunked is supported": "a trailer called Transfer-Encoding",
    "conflicting Content-Length headers": "trailers called Content-Length",
}


@dataclass
class Theirs:
    """What h11 read: method, target and body of each request; its own words where it refused the next."""

    requests: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    error: str = ""
    closed: bool = False


def read_by_h11(data: bytes) -> Theirs:
    """`data` as a server with h11 would read it, answering each request with an empty 404."""
    # As generous as we are: its own limit is on what has not become an event yet.
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 24)
    connection.receive_data(data)
    theirs = Theirs()
    method = target = body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            theirs.error = str(error)
            return theirs
        if isinstance(event, h11.Request):
            method, target, body = event.method, event.target, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            theirs.requests.append((method, target, body))
            connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                theirs.closed = True
                return theirs
            connection.start_next_cycle()
        else:  # NEED_DATA, or what cannot be here: we never close
            return theirs


def never_more_than_h11(data: bytes) -> Read:
    """Never one request more than h11 reads, never another body; but for what `STRICTER` lists."""
    ours = whole(data)
    theirs = read_by_h11(data)
    for number, request in enumerate(ours.requests):
        head = request.head
        if number < len(theirs.requests):
            read = (head.method.encode(), head.target.encode(), request.body)
            assert read == theirs.requests[number], f"request {number}: we read {read}, h11 {theirs.requests[number]}"
            continue
        # Here h11 has stopped. HTTP/1.0 with keep-alive is an extension that it does not know.
        extension = theirs.closed and number and not ours.requests[number - 1].head.http11
        reason = next((why for words, why in STRICTER.items() if words in theirs.error), "")
        assert extension or reason, f"request {number}: we read {request!r}, h11 says {theirs.error!r}"
        assert "trailer" not in reason or head.chunked, theirs.error
        break
    return ours


def the_same_however_cut(data: bytes, places: Iterable[int]) -> Read:
    """Cutting never changes the meaning, nor the status of a refusal for one reason."""
    expected = whole(data)
    for read in (cut_at(data, places), byte_by_byte(data)):
        assert read.meaning == expected.meaning
        if read.status != expected.status:
            # With two faults in one head, which is found first may depend on how much of it was there.
            assert {read.status, expected.status} <= {400, 431, 501, 505}, (read.detail, expected.detail)
    return expected


def in_order(read: Read) -> None:
    """What is true of any result: a refusal has a status of ours, requests are whole, and only the last may close."""
    assert read.status in (0, 400, 413, 414, 417, 431, 501, 505, 507)
    assert not (read.status and read.waiting)
    for request in read.requests:
        head = request.head
        assert head.method.isascii() and head.method == head.method.upper() != ""
        assert head.path[:1] in ("/", "*") and not (head.path[:1] == "*" and head.method != "OPTIONS")
        assert head.http11 is False or "HTTP_HOST" in head.fields
        assert not (head.chunked and "CONTENT_LENGTH" in head.fields)
        assert head.chunked or len(request.body) == head.length
        for key, value in head.fields.items():
            assert key == key.upper() and "-" not in key and key not in ("", "HTTP_PROXY", "HTTP_CONTENT_LENGTH")
            assert not any((ord(c) < 0x20 and c != "\t") or ord(c) == 0x7F or ord(c) > 0xFF for c in value)
    assert all(request.head.keep_alive for request in read.requests[:-1])
