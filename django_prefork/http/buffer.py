"""A request head while it arrives: where it ends, and whether it keeps to the limits until then."""

from __future__ import annotations

from django_prefork.http.errors import HttpError
from django_prefork.http.parser import LIMIT_HEAD, RequestParser

# Empty lines before the request line (RFC 9112 section 2.2 asks to skip "at least one").
LIMIT_BLANK = 16


class HeadBuffer:
    """A request head that does not arrive in one piece, or is too long to be taken unlooked at.

    Lines are counted and measured while they arrive, each byte looked at once.
    """

    __slots__ = ("_line", "_lines", "_parser", "_start", "data")

    def __init__(self, parser: RequestParser) -> None:
        self._parser = parser
        self.data = bytearray()
        self._start = 0  # of the request line: behind the empty lines that may come before it
        self._line = 0  # where the line begins whose end has not been seen
        self._lines = 0  # complete lines so far

    @property
    def blank(self) -> bool:
        """Nothing but empty lines has come."""
        return self._start == len(self.data)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take `data`; return the head and what came behind it once it is complete, None before.

        Raises `HttpError` 400, 414, 431 or 505 as soon as no further byte can mend it.
        """
        buffer = self.data
        seen = len(buffer)
        buffer += data
        limits = self._parser.limits
        while True:
            end = buffer.find(b"\n", seen)
            # A line's bytes so far, without its CR: that may be the last byte here, and its LF in the next piece.
            length = (len(buffer) - buffer.endswith(b"\r") if end < 0 else end - 1) - self._line
            if length and self._lines == 0 and length > limits.line:
                raise HttpError(414, "request line over limit_request_line")
            if self._lines and length > limits.field_size:
                raise HttpError(431, "field over limit_request_field_size")
            if (len(buffer) if end < 0 else end + 1) - self._start > LIMIT_HEAD:
                raise HttpError(431, "head too large")
            if end < 0:
                return None
            if length < 0 or buffer[end - 1] != 0x0D:
                raise HttpError(400, "bare LF")
            seen = end + 1
            if self._lines == 0:
                if length == 0:
                    if seen > LIMIT_BLANK:
                        raise HttpError(400, "empty lines before the request")
                    self._start = self._line = seen
                    continue
                # What cannot become a request is refused before the rest of it comes.
                self._parser.request_line(bytes(buffer[self._line : end - 1]))
            elif length == 0:
                return bytes(buffer[self._start : self._line - 2]), bytes(buffer[seen:])
            elif self._lines > limits.fields:
                raise HttpError(431, "more fields than limit_request_fields")
            self._line = seen
            self._lines += 1
