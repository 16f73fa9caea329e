"""Bytes -> RequestHead and body framing.

The promise, held by the tests: any bytes either parse or raise `HttpError`, nothing else; the cost is linear in their
number; and how they were cut on their way never changes the meaning.

What a browser sends is mostly what it sent before. So each field line, and each request line, is judged once and then
looked up: 12 fields cost 1.4 us that way and 8 us without. The caches are bounded, hold nothing that carries a secret
(Cookie, Authorization) or hardly ever comes twice (Referer), and are emptied when full, so that a hostile client can
cost us that difference and no more.

Lines are what stands between LFs, each with its CR: Python finds one byte at twice the speed of two (13 lines: 0.40 us
instead of 0.65), and a line that has no CR is then just another line that is not known.
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


def _others_marked(allowed: bytes) -> bytes:
    """A table for bytes.translate() that leaves alone what is allowed, and only that.

    `text.translate(table) == text` takes 60 ns for a cookie, `not text.translate(None, allowed)` 190.
    """
    return bytes(byte if byte in allowed else (byte + 1) % 256 for byte in range(256))


#: For bytes.translate(): changes what must not stand in a field's value.
FIELD_VALUE = _others_marked(_VALUE_BYTES)
_TARGET = _others_marked(_TARGET_BYTES)
# As they come nearly always: neither matched nor decoded again.
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
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
# Secrets, and what would only push out of the cache what comes again.
_FORGOTTEN = frozenset(
    {
        "HTTP_COOKIE",
        "HTTP_AUTHORIZATION",
        "HTTP_PROXY_AUTHORIZATION",
        "HTTP_X_CSRFTOKEN",
        "CONTENT_LENGTH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_RANGE",
        "HTTP_REFERER",
        "HTTP_TRACEPARENT",
        "HTTP_X_REQUEST_ID",
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost, in bytes; `fields` is a count. `body` 0 means unlimited."""

    line: int = 8190
    fields: int = 100
    field_size: int = 8190
    body: int = 1 << 30


# The line itself, method, target, decoded path, query, whether HTTP/1.1, authority.
RequestLine = tuple[bytes, str, str, str, str, bool, str | None]


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


def lines_of(data: bytes) -> list[bytes] | None:
    """The lines of a head that is all that `data` holds, as `RequestParser.judge` wants them; None: it is not so.

    It nearly always is, and then there is no need to look for the head's end first, which takes 0.4 us.
    """
    if not data.endswith(b"\r\n\r\n"):
        return None
    lines = data.split(b"\n")
    if lines.index(b"\r") != len(lines) - 2:
        return None  # a body, or a next request, or an empty line before this one
    del lines[-2:]
    return lines


class RequestParser:
    """Judges heads under `limits`. One per worker: it remembers lines it has judged."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        # Below this size no line of a head can be over its limit, so that they need not be looked at one by one.
        self.small = min(limits.line, limits.field_size, LIMIT_HEAD - 4)
        self._lines: dict[bytes, RequestLine] = {}
        #: The same of a first line that was judged before; None of others.
        self.known_line = self._lines.get
        self._fields: dict[bytes, tuple[str, str]] = {}
        self._names: dict[bytes, str] = {}
        self._hosts: set[str] = set()

    def parse(self, head: bytes, fields: dict[str, Any]) -> RequestHead:
        """Judge `head`, everything before the empty line, and put its fields into the dict `fields`.

        `head` is within the limits of size: `HeadBuffer` sees to that, or `head` is not longer than `self.small`.
        Raises `HttpError` 400, 417, 431, 501 or 505.
        """
        return self.judge((head + b"\r").split(b"\n"), fields)

    def judge(self, lines: list[bytes], fields: dict[str, Any]) -> RequestHead:
        """As `parse`, of a head that was taken apart at each LF. The list is used up."""
        first = lines[0]
        request_line = self.known_line(first) or self.first_line(first)
        del lines[0]
        if len(lines) > self.limits.fields:
            raise HttpError(431, "more fields than limit_request_fields")
        seen = self._fields.get
        count = len(fields) + len(lines)
        for line in lines:
            key, value = seen(line) or self._field(line)
            fields[key] = value
        if len(fields) != count:
            self._join(lines, fields)
        fields.pop("", None)  # a dropped field: an underscore in its name, or Proxy

        request = RequestHead()
        request.line, request.method, request.target, request.path, request.query, http11, authority = request_line
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

    def first_line(self, line: bytes) -> RequestLine:
        """Judge what stands before a head's first LF, if it is no `known_line`. Raises `HttpError` 400, 501 or 505."""
        if not line.endswith(b"\r"):
            raise HttpError(400, "bare LF")
        result = self.request_line(line[:-1])
        # A query seldom comes twice, and would push out paths that do.
        if len(line) <= CACHED_LINE_BYTES and not result[4]:
            _remember(self._lines, line, result)
        return result

    def request_line(self, line: bytes) -> RequestLine:
        """`method SP target SP HTTP/1.1`"""
        words = line.split(b" ")
        if len(words) != 3:
            simple = len(words) == 2 and words[1].startswith(b"/") and not words[1].translate(None, _TARGET_BYTES)
            if simple and _METHOD.fullmatch(words[0]):
                raise HttpError(505, "HTTP/0.9")
            raise HttpError(400, "malformed request line")
        method, target, version = words
        name = _METHODS.get(method)
        if name is None:
            if not _METHOD.fullmatch(method):
                raise HttpError(400, "malformed method")
            name = method.decode("ascii")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            match = _VERSION.fullmatch(version)
            if not match:
                raise HttpError(400, "malformed version")
            if match[1] != b"1":
                raise HttpError(505, "unknown version")
        if method == b"CONNECT":
            # RFC 9931: whatever follows is a tunnel's, and never parsed.
            raise HttpError(501, "CONNECT")
        if not target or target.translate(_TARGET) != target:
            raise HttpError(400, "malformed target")

        whole = text = target.decode("ascii")
        authority = None
        if target[0] != 0x2F:  # "/"
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute:
                authority = absolute[1].decode("latin-1")
                self._host(authority)
                text = absolute[2].decode("ascii")
                if not text.startswith("/"):
                    text = "/" + text
            elif target != b"*" or method != b"OPTIONS":
                raise HttpError(400, "malformed target")
        path, _, query = text.partition("?")
        if "%" in path:
            path = unquote_to_bytes(path).decode("latin-1")
        return line, name, whole, path, query, version != b"HTTP/1.0", authority

    def _field(self, line: bytes) -> tuple[str, str]:
        """`name ":" OWS value OWS CR` -> CGI name ("" where the field is dropped), value."""
        name, colon, value = line.partition(b":")
        key = self._names.get(name)
        if key is None:
            # Leading white space (a folded line, RFC 9112 section 5.2) and white space before the colon end here too.
            if not colon or not _TOKEN.fullmatch(name):
                raise HttpError(400, "malformed field name")
            key = cgi_name(name)
            if len(name) <= CACHED_LINE_BYTES:
                _remember(self._names, name, key)
        elif not colon:
            raise HttpError(400, "malformed field")
        text = value[:-1]
        if text.translate(FIELD_VALUE) != text or not value.endswith(b"\r"):
            raise HttpError(400, "control character in a field value")
        # RFC 9110 section 5.5: exactly SP and HTAB; str.strip() would take more.
        result = (key, text.strip(b" \t").decode("latin-1"))
        if key not in _FORGOTTEN and len(line) <= CACHED_LINE_BYTES:
            _remember(self._fields, line, result)
        return result

    def _join(self, lines: list[bytes], fields: dict[str, Any]) -> None:
        """There are fields of the same name: `fields` has the last of each."""
        values: dict[str, list[str]] = {}
        for line in lines:
            key, value = self._fields.get(line) or self._field(line)
            values.setdefault(key, []).append(value)
        for key, several in values.items():
            if len(several) > 1 and key:
                fields[key] = _joined(key, several)

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


def is_field(line: bytes) -> bool:
    """Whether `line`, without its CRLF, is a well-formed field line (RFC 9112 section 5)."""
    name, colon, value = line.partition(b":")
    return bool(colon and _TOKEN.fullmatch(name)) and not value.translate(None, _VALUE_BYTES)


def cgi_name(name: bytes) -> str:
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
