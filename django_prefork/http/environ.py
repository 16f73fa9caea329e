"""RequestHead + body + peer -> WSGI environ (PEP 3333)."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable
from typing import IO, Any

from django_prefork import __version__
from django_prefork.http.parser import RequestHead
from django_prefork.http.response import FileWrapper

SERVER_SOFTWARE = f"django-prefork/{__version__}"

#: The environ's key for how long the request waited for a worker (seconds).
QUEUE_TIME = "prefork.queue_time"
# Who says that a request is older than this (seconds) has another clock than we.
OLDEST = 3600.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NoBody:
    """The input of a request without a body: stateless, so that one serves all requests."""

    def read(self, size: int | None = -1, /) -> bytes:
        return b""

    def readline(self, size: int | None = -1, /) -> bytes:
        return b""

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        return []

    def __iter__(self) -> NoBody:
        return self

    def __next__(self) -> bytes:
        raise StopIteration

    def close(self) -> None:
        """Nothing to give back."""


NO_BODY = NoBody()


def template(*, server_name: str, server_port: str, errors: Any, **extra: Any) -> dict[str, Any]:
    """What every request of one listener has in common; copied once per request.

    It begins with what `complete` replaces: so the copies have room for a usual request's fields, and need not grow.
    """
    return {
        "REQUEST_METHOD": "",
        "PATH_INFO": "",
        "QUERY_STRING": "",
        "RAW_URI": "",
        "REMOTE_ADDR": "",
        "REMOTE_PORT": "",
        "SCRIPT_NAME": "",
        "SERVER_NAME": server_name,
        "SERVER_PORT": server_port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": SERVER_SOFTWARE,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": NO_BODY,
        "wsgi.errors": errors,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        # The whole body is there before the application runs, so that reading past its end is harmless.
        "wsgi.input_terminated": True,
        **extra,
    }


def complete(
    head: RequestHead, peer: tuple[str, str], trusted: TrustedProxies | None, waited: float = 0.0
) -> dict[str, Any]:
    """Make `head.fields`, which began as a copy of the template, the request's environ.

    `peer` is address and port, `waited` how long the request is known to have been here (seconds).
    """
    environ = head.fields
    environ["REQUEST_METHOD"] = head.method
    environ["PATH_INFO"] = head.path
    environ["QUERY_STRING"] = head.query
    environ["RAW_URI"] = head.target
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = peer
    environ[QUEUE_TIME] = waited
    if not head.http11:
        environ["SERVER_PROTOCOL"] = "HTTP/1.0"
    if trusted is not None:
        trusted.apply(environ, peer[0])
    return environ


def give_body(environ: dict[str, Any], file: IO[bytes], size: int) -> None:
    """Hand over a body that has arrived.

    Django reads exactly CONTENT_LENGTH bytes, and so would see nothing of a chunked body (Django ticket #35838).
    """
    environ["wsgi.input"] = file
    environ["CONTENT_LENGTH"] = str(size)
    environ.pop("HTTP_TRANSFER_ENCODING", None)


class TrustedProxies:
    """Whom to believe X-Forwarded-For, X-Forwarded-Proto and Forwarded: `forwarded_allow_ips`.

    `allowed` holds addresses, networks, or "*". The peer of a unix socket has no address and is trusted.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        allowed = tuple(allowed)
        self._everyone = "*" in allowed
        self._networks: tuple[Network, ...] = tuple(
            ipaddress.ip_network(text, strict=False) for text in allowed if text != "*"
        )
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        if self._everyone or not address:
            return True
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= 1024:
                self._known.clear()
            known = self._known[address] = self._judge(address)
        return known

    def _judge(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        return any(address.version == network.version and address in network for network in self._networks)

    def apply(self, environ: dict[str, Any], peer: str) -> None:
        """Let `environ` say what a trusted peer forwards: the right-most untrusted address, and the scheme."""
        if peer not in self:
            return
        hops, schemes = _forwarded(environ)
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break  # what cannot be read cannot be believed, nor what stands before it
            environ["REMOTE_ADDR"] = address
            environ["REMOTE_PORT"] = "0"
            if address not in self:
                break
        # Proxies that disagree fail safe: http.
        if schemes and all(scheme == "https" for scheme in schemes):
            environ["wsgi.url_scheme"] = "https"
        start = environ.get("HTTP_X_REQUEST_START")
        if start is not None:
            environ[QUEUE_TIME] = max(environ[QUEUE_TIME], _age(start))


def _age(start: str) -> float:
    """Seconds since `start`, an X-Request-Start: `t=` or nothing, then seconds, milli- or microseconds since 1970.

    0.0 where it says nothing that can be so. Of several, the first counts: that of the outermost proxy.
    """
    try:
        at = float(start.partition(",")[0].strip().removeprefix("t="))
    except ValueError:
        return 0.0
    # Seconds are ten digits until the year 2286.
    age = time.time() - (at / 1e6 if at > 1e14 else at / 1e3 if at > 1e11 else at)
    return age if 0.0 < age < OLDEST else 0.0


def _forwarded(environ: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The hops and the schemes that X-Forwarded-* and Forwarded (RFC 7239) name, in the order they stand there."""
    hops = [hop.strip() for hop in environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    schemes = [s.strip().lower() for s in environ.get("HTTP_X_FORWARDED_PROTO", "").split(",") if s.strip()]
    forwarded = environ.get("HTTP_FORWARDED", "")
    if forwarded:
        named = []
        for element in forwarded.split(","):
            for pair in element.split(";"):
                name, _, value = pair.strip().partition("=")
                value = value.strip().strip('"')
                if name.lower() == "for":
                    named.append(value)
                elif name.lower() == "proto":
                    schemes.append(value.lower())
        hops = hops or named
    return hops, schemes


def _address(hop: str) -> str | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None if there is none."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ipaddress.ip_address(hop))
    except ValueError:
        return None
