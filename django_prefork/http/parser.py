"""Bytes -> RequestHead and body framing.

The promise, held by the tests: any bytes either parse or raise `HttpError`, nothing else; the cost is linear in their
number; and how they were cut on their way never changes the meaning.

What a browser sends is mostly what it sent before. So each field line, and each request line, is judged once and then
looked up: 12 fields cost 4 us that way and 12 us without. The caches are bounded, hold nothing that carries a secret
(Cookie, Authorization), and are emptied when full, so that a hostile client can cost us that difference and no more.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from django_prefork.http.errors import HttpError

# A whole head beyond this is refused, whatever its lines are: it is what one client may make a worker remember.
LIMIT_HEAD = 64 * 1024
# Empty lines before the request line (RFC 9112 section 2.2 asks to skip "at least one").
LIMIT_BLANK = 16

CACHED_LINES = 1024
CACHED_LINE_BYTES = 256

# RFC 9110 section 5.6.2: token = 1*tchar
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# A method in lower case is a token too, but Django would upper-case it: refused (RFC 9110 section 9.1).
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Z]+")
# RFC 9112 section 2.3: HTTP-version = HTTP-name "/" DIGIT "." DIGIT
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
# RFC 9110 section 5.5: field-vchar, SP and HTAB; obs-text is kept as latin-1.
_VALUE_BYTES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
# Printable ASCII without the fragment's "#": what the web sends, more than the URI grammar has.
_TARGET_BYTES = bytes(range(0x21, 0x7F)).replace(b"#", b"")
# RFC 9110 section 4.2: absolute-form of the two schemes that an HTTP server serves.
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
# RFC 3986 section 3.2.2: reg-name or IP-literal (checked apart), and a port; no userinfo, and no ",".
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
# RFC 9110 section 10.1.4 as far as it decides between "not understood" (501) and "not even that" (400).
_CODINGS = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")

# Fields of which a second one makes the message ambiguous; joined, each would be read as something nobody sent.
_SINGLETONS = {
    "HTTP_HOST": 400,
    "CONTENT_LENGTH": 400,
    "CONTENT_TYPE": 400,
    "HTTP_AUTHORIZATION": 400,
    "HTTP_TRANSFER_ENCODING": 501,
}
_SECRETS = frozenset({"HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost, in bytes; `fields` is a count. `body` 0 means unlimited."""

    line: int = 8190
    fields: int = 100
    field_size: int = 8190
    body: int = 1 << 30


class RequestHead:
    """A request's head, judged. Strings hold latin-1, as PEP 3333 wants them.

    `target` is exactly what came, `line` the whole request line. `fields` maps CGI names (RFC 3875 section 4.1.18:
    HTTP_ACCEPT, CONTENT_TYPE) to values. `length` is the body's declared length in bytes, 0 for none; with `chunked`
    it says nothing. `expects` asks for `100 Continue`.
    """

    __slots__ = (
        "chunked",
        "expects",
        "fields",
        "http11",
        "keep_alive",
        "length",
        "line",
        "method",
        "path",
        "query",
        "target",
    )

    method: str
    target: str
    path: str
    query: str
    line: bytes
    http11: bool
    keep_alive: bool
    length: int
    chunked: bool
    expects: bool
    fields: dict[str, Any]


class RequestParser:
    """Judges heads under `limits`. One per worker: it remembers lines it has judged."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        # Below this size no line of a head can be over its limit, so that they need not be looked at one by one.
        self.small = min(limits.line, limits.field_size, LIMIT_HEAD - 4)
        self._lines: dict[bytes, tuple[str, str, str, str, bool, str | None]] = {}
        self._fields: dict[bytes, tuple[str, str]] = {}
        self._names: dict[bytes, str] = {}
        self._hosts: set[str] = set()

    def parse(self, head: bytes, fields: dict[str, Any]) -> RequestHead:
        """Judge `head`, everything before the empty line, and put its fields into the dict `fields`.

        `head` is within the limits of size: `HeadBuffer` sees to that, or `head` is not longer than `self.small`.
        Raises `HttpError` 400, 417, 431, 501 or 505.
        """
        lines = head.split(b"\r\n")
        first = lines[0]
        request_line = self._lines.get(first) or self._request_line(first)
        del lines[0]
        if len(lines) > self.limits.fields:
            raise HttpError(431, "more fields than limit_request_fields")
        seen = self._fields
        repeated: dict[str, list[str]] = {}
        for line in lines:
            key, value = seen.get(line) or self._field(line)
            if key not in fields:
                fields[key] = value
            elif key:
                repeated.setdefault(key, [fields[key]]).append(value)
        # A dropped field (an underscore in its name, or Proxy) has an empty key.
        fields.pop("", None)
        for key, values in repeated.items():
            fields[key] = _joined(key, values)

        request = RequestHead()
        request.method, request.target, request.path, request.query, http11, authority = request_line
        request.line = first
        request.http11 = http11
        request.fields = fields

        host = fields.get("HTTP_HOST")
        if host is None:
            if http11:
                raise HttpError(400, "HTTP/1.1 without Host")
        elif host not in self._hosts:
            self._host(host)
        if authority is not None:
            # RFC 9112 section 3.2.2: an absolute-form target replaces Host.
            fields["HTTP_HOST"] = authority

        connection = fields.get("HTTP_CONNECTION")
        if connection is None:
            request.keep_alive = http11
        elif connection == "keep-alive":
            request.keep_alive = True
        else:
            options = {option.strip(" \t") for option in connection.lower().split(",")}
            request.keep_alive = "close" not in options and (http11 or "keep-alive" in options)

        request.chunked = False
        length = fields.get("CONTENT_LENGTH")
        if "HTTP_TRANSFER_ENCODING" in fields:
            self._transfer_encoding(request, fields["HTTP_TRANSFER_ENCODING"], length)
            request.length = 0
        elif length is None:
            request.length = 0
        else:
            # RFC 9112 section 6.3. str.isdigit() alone would take other scripts' digits, int() signs and underscores.
            if not (length.isascii() and length.isdigit()) or len(length) > 19:
                raise HttpError(400, "malformed Content-Length")
            request.length = int(length)
            if request.length > self.limits.body > 0:
                raise HttpError(413, "Content-Length over limit_request_body")

        request.expects = False
        expect = fields.get("HTTP_EXPECT")
        if expect is not None and http11:
            if expect.lower() != "100-continue":
                raise HttpError(417, "unknown expectation")
            request.expects = request.chunked or request.length > 0
        return request

    def _request_line(self, line: bytes) -> tuple[str, str, str, str, bool, str | None]:
        """`method SP target SP HTTP/1.1` -> method, target, decoded path, query, whether 1.1, authority."""
        words = line.split(b" ")
        if len(words) != 3:
            simple = len(words) == 2 and words[1].startswith(b"/") and not words[1].translate(None, _TARGET_BYTES)
            if simple and _METHOD.fullmatch(words[0]):
                raise HttpError(505, "HTTP/0.9")
            raise HttpError(400, "malformed request line")
        method, target, version = words
        if not _METHOD.fullmatch(method):
            raise HttpError(400, "malformed method")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            match = _VERSION.fullmatch(version)
            if not match:
                raise HttpError(400, "malformed version")
            if match[1] != b"1":
                raise HttpError(505, "unknown version")
        if method == b"CONNECT":
            # RFC 9931: whatever follows is a tunnel's, and never parsed.
            raise HttpError(501, "CONNECT")
        if not target or target.translate(None, _TARGET_BYTES):
            raise HttpError(400, "malformed target")

        authority = None
        if target[0] != 0x2F:  # "/"
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute:
                authority = absolute[1].decode("latin-1")
                self._host(authority)
                target = absolute[2]
                if not target.startswith(b"/"):
                    target = b"/" + target
            elif target != b"*" or method != b"OPTIONS":
                raise HttpError(400, "malformed target")
        path, _, query = target.partition(b"?")
        if b"%" in path:
            path = unquote_to_bytes(path)
        result = (
            method.decode("latin-1"),
            words[1].decode("latin-1"),
            path.decode("latin-1"),
            query.decode("latin-1"),
            version != b"HTTP/1.0",
            authority,
        )
        if len(line) <= CACHED_LINE_BYTES:
            _remember(self._lines, line, result)
        return result

    def _field(self, line: bytes) -> tuple[str, str]:
        """`name ":" OWS value OWS` -> CGI name ("" where the field is dropped), value."""
        name, colon, value = line.partition(b":")
        key = self._names.get(name)
        if key is None:
            # Leading white space (a folded line, RFC 9112 section 5.2) and white space before the colon end here too.
            if not colon or not _TOKEN.fullmatch(name):
                raise HttpError(400, "malformed field name")
            key = _cgi_name(name)
            if len(name) <= CACHED_LINE_BYTES:
                _remember(self._names, name, key)
        elif not colon:
            raise HttpError(400, "malformed field")
        if value.translate(None, _VALUE_BYTES):
            raise HttpError(400, "control character in a field value")
        # RFC 9110 section 5.5: exactly SP and HTAB; str.strip() would take more.
        result = (key, value.strip(b" \t").decode("latin-1"))
        if len(line) <= CACHED_LINE_BYTES and key not in _SECRETS:
            _remember(self._fields, line, result)
        return result

    def _host(self, host: str) -> None:
        """Raise 400 unless `host` is uri-host [":" port] (RFC 9110 section 7.2)."""
        match = _HOST.fullmatch(host)
        if not match or (match[2] and int(match[2]) > 65535):
            raise HttpError(400, "malformed host")
        if match[1]:
            try:
                ipaddress.IPv6Address(match[1])
            except ValueError:
                raise HttpError(400, "malformed host") from None
        if len(self._hosts) >= CACHED_LINES:
            self._hosts.clear()
        self._hosts.add(host)

    def _transfer_encoding(self, request: RequestHead, coding: str, length: str | None) -> None:
        """RFC 9112 section 6.1: exactly `chunked`, in 1.1, without Content-Length; anything else may be smuggling."""
        if length is not None:
            raise HttpError(400, "Transfer-Encoding and Content-Length")
        if not request.http11:
            raise HttpError(400, "Transfer-Encoding in HTTP/1.0")
        if coding.lower() != "chunked":
            raise HttpError(501 if _CODINGS.fullmatch(coding) else 400, "unknown transfer coding")
        request.chunked = True


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
                self._parser._request_line(bytes(buffer[self._line : end - 1]))
            elif length == 0:
                return bytes(buffer[self._start : self._line - 2]), bytes(buffer[seen:])
            elif self._lines > limits.fields:
                raise HttpError(431, "more fields than limit_request_fields")
            self._line = seen
            self._lines += 1


def is_field(line: bytes) -> bool:
    """Whether `line`, without its CRLF, is a well-formed field line (RFC 9112 section 5)."""
    name, colon, value = line.partition(b":")
    return bool(colon and _TOKEN.fullmatch(name)) and not value.translate(None, _VALUE_BYTES)


def _cgi_name(name: bytes) -> str:
    """RFC 3875 section 4.1.18; "" for what must not reach the application under that name."""
    if b"_" in name:
        return ""  # it would shadow the name with "-": CVE-2015-0219
    key = name.decode("ascii").upper().replace("-", "_")
    if key == "PROXY":
        return ""  # HTTP_PROXY is an environment variable that HTTP clients obey: CVE-2016-5385
    if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return key
    return "HTTP_" + key


def _joined(key: str, values: list[str]) -> str:
    """RFC 9110 section 5.3; Cookie is the exception (RFC 6265 section 5.4), or Django would lose cookies."""
    status = _SINGLETONS.get(key)
    if status is not None:
        raise HttpError(status, "repeated field")
    return ("; " if key == "HTTP_COOKIE" else ", ").join(values)


def _remember(cache: dict[bytes, Any], key: bytes, value: Any) -> None:
    if len(cache) >= CACHED_LINES:
        cache.clear()
    cache[key] = value
