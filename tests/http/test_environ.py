"""What the application is told: PEP 3333, and whom to believe about the client."""

from __future__ import annotations

import sys
import wsgiref.validate
from typing import Any

import pytest

from django_prefork.http.environ import NO_BODY, SERVER_SOFTWARE, TrustedProxies, complete, template
from django_prefork.http.parser import Limits, RequestParser
from django_prefork.http.response import FileWrapper
from tests.http.cases.make import get

PEER = ("192.0.2.9", "4711")


def environ_of(
    *fields: bytes,
    line: bytes = b"GET /a%20b?c=d HTTP/1.1",
    peer: tuple[str, str] = PEER,
    trusted: TrustedProxies | None = None,
) -> dict[str, Any]:
    began = template(server_name="server", server_port="8000", errors=sys.stderr, **{"prefork.slot": 3})
    head = RequestParser(Limits()).parse(get(*fields, line=line)[:-4], began.copy())
    return complete(head, peer, trusted)


def test_the_environ_is_what_pep_3333_asks_for() -> None:
    environ = environ_of(b"X-A: caf\xc3\xa9", b"Content-Type: text/plain")
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=d",
        "RAW_URI": "/a%20b?c=d",
        "CONTENT_TYPE": "text/plain",
        "REMOTE_ADDR": "192.0.2.9",
        "REMOTE_PORT": "4711",
        "SERVER_NAME": "server",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": SERVER_SOFTWARE,
        "HTTP_HOST": "h",
        "HTTP_X_A": "cafÃ©",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": NO_BODY,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
        "prefork.slot": 3,
        "prefork.queue_time": 0.0,
    }
    assert type(environ) is dict
    for key, value in environ.items():
        if key.upper() == key:
            assert type(value) is str and value.encode("latin-1").decode("latin-1") == value


def test_the_standard_library_finds_nothing_wrong_with_it() -> None:
    wsgiref.validate.check_environ(environ_of())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("version", "protocol"),
    [(b"HTTP/1.0", "HTTP/1.0"), (b"HTTP/1.1", "HTTP/1.1"), (b"HTTP/1.2", "HTTP/1.1"), (b"HTTP/1.9", "HTTP/1.1")],
)
def test_the_protocol_is_one_that_there_is(version: bytes, protocol: str) -> None:
    assert environ_of(line=b"GET / " + version)["SERVER_PROTOCOL"] == protocol


def test_what_one_request_changes_the_next_does_not_see() -> None:
    began = template(server_name="server", server_port="8000", errors=sys.stderr)
    parser = RequestParser(Limits())
    for _ in range(2):
        environ = complete(parser.parse(get(b"X: y")[:-4], began.copy()), PEER, None)
        assert "added" not in environ and environ["SERVER_NAME"] == "server"
        environ["added"] = environ["SERVER_NAME"] = "changed"


# -- whom to believe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "peer", "trusted"),
    [
        ((), "127.0.0.1", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("127.0.0.1",), "127.0.0.2", False),
        (("127.0.0.0/8",), "127.255.255.255", True),
        (("127.0.0.0/8",), "128.0.0.0", False),
        (("127.0.0.1/8",), "127.9.9.9", True),
        (("10.0.0.0/8", "192.0.2.9"), "192.0.2.9", True),
        (("0.0.0.0/0",), "1.2.3.4", True),
        (("0.0.0.0/0",), "::1", False),
        (("::/0",), "1.2.3.4", False),
        (("::1",), "::1", True),
        (("::1",), "0:0:0:0:0:0:0:1", True),
        (("2001:db8::/32",), "2001:db8:ffff::1", True),
        (("2001:db8::/32",), "2001:db9::1", False),
        # A socket that listens to both families says so of an IPv4 client.
        (("127.0.0.0/8",), "::ffff:127.0.0.1", True),
        (("127.0.0.0/8",), "::ffff:128.0.0.1", False),
        (("::1",), "::ffff:127.0.0.1", False),
        (("*",), "1.2.3.4", True),
        (("*",), "::1", True),
        # The peer of a unix socket has no address.
        (("127.0.0.1",), "", True),
        (("127.0.0.1",), "nonsense", False),
        (("127.0.0.1",), "127.0.0.1 ", False),
        (("fe80::/10",), "fe80::1%eth0", True),
    ],
)
def test_who_is_trusted(allowed: tuple[str, ...], peer: str, trusted: bool) -> None:
    proxies = TrustedProxies(allowed)
    for _ in range(2):  # asked, then remembered
        assert (peer in proxies) is trusted


def test_what_it_remembers_is_bounded() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    for number in range(5000):
        assert f"10.0.{number // 256}.{number % 256}" in proxies
    assert len(proxies._known) <= 1024


PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48"])
NEAR = ("10.0.0.1", "1")


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ((), "10.0.0.1"),
        ((b"X-Forwarded-For: 1.2.3.4",), "1.2.3.4"),
        # The right-most that is not one of ours: what stands before it anyone may have written.
        ((b"X-Forwarded-For: 6.6.6.6, 1.2.3.4",), "1.2.3.4"),
        ((b"X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.2",), "1.2.3.4"),
        ((b"X-Forwarded-For: 1.2.3.4,10.0.0.3 ,\t10.0.0.2",), "1.2.3.4"),
        ((b"X-Forwarded-For: 10.6.6.6, 1.2.3.4, 10.0.0.2",), "1.2.3.4"),
        ((b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 1.2.3.4"), "1.2.3.4"),
        # All ours: the first of them is where it began.
        ((b"X-Forwarded-For: 10.0.0.4, 10.0.0.3",), "10.0.0.4"),
        ((b"X-Forwarded-For: 1.2.3.4:5678",), "1.2.3.4"),
        ((b"X-Forwarded-For: 2001:db8::1",), "2001:db8::1"),
        ((b"X-Forwarded-For: [2001:db8::1]:5678",), "2001:db8::1"),
        ((b"X-Forwarded-For: [2001:db8::1]",), "2001:db8::1"),
        ((b"X-Forwarded-For: 1.2.3.4, 2001:db8:1::5",), "1.2.3.4"),
        ((b"X-Forwarded-For: 1.2.3.4, ::ffff:10.0.0.2",), "1.2.3.4"),
        # What cannot be read cannot be believed, nor what stands before it.
        ((b"X-Forwarded-For: 1.2.3.4, unknown",), "10.0.0.1"),
        ((b"X-Forwarded-For: 1.2.3.4, unknown, 10.0.0.2",), "10.0.0.2"),
        ((b"X-Forwarded-For: unknown, 1.2.3.4",), "1.2.3.4"),
        ((b"X-Forwarded-For: 01.2.3.4",), "10.0.0.1"),
        ((b"X-Forwarded-For: 1.2.3.4\xa0",), "1.2.3.4"),
        ((b"X-Forwarded-For: ",), "10.0.0.1"),
        ((b"X-Forwarded-For: , ,",), "10.0.0.1"),
        ((b"X-Forwarded-For: <script>",), "10.0.0.1"),
        # RFC 7239.
        ((b"Forwarded: for=1.2.3.4",), "1.2.3.4"),
        ((b"Forwarded: for=6.6.6.6, For=1.2.3.4;by=10.0.0.1;proto=https",), "1.2.3.4"),
        ((b'Forwarded: for="[2001:db8::1]:5678"',), "2001:db8::1"),
        ((b'Forwarded: for="1.2.3.4:5678" ; by="x"',), "1.2.3.4"),
        ((b"Forwarded: for=unknown",), "10.0.0.1"),
        ((b"Forwarded: for=_hidden, for=10.0.0.2",), "10.0.0.2"),
        ((b"Forwarded: by=1.2.3.4",), "10.0.0.1"),
        ((b"Forwarded: nonsense",), "10.0.0.1"),
        ((b"Forwarded: for=5.5.5.5", b"X-Forwarded-For: 1.2.3.4"), "1.2.3.4"),
    ],
)
def test_the_address_is_the_right_most_one_that_is_not_a_proxy(fields: tuple[bytes, ...], address: str) -> None:
    environ = environ_of(*fields, peer=NEAR, trusted=PROXIES)
    assert environ["REMOTE_ADDR"] == address
    assert environ["REMOTE_PORT"] == ("1" if address == "10.0.0.1" else "0")


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        ((), "http"),
        ((b"X-Forwarded-Proto: https",), "https"),
        ((b"X-Forwarded-Proto: HTTPS",), "https"),
        ((b"X-Forwarded-Proto: http",), "http"),
        ((b"X-Forwarded-Proto: https, https",), "https"),
        # Proxies that disagree fail safe.
        ((b"X-Forwarded-Proto: https, http",), "http"),
        ((b"X-Forwarded-Proto: http, https",), "http"),
        ((b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http"), "http"),
        ((b"X-Forwarded-Proto: https", b"Forwarded: proto=http"), "http"),
        ((b"X-Forwarded-Proto: https", b"Forwarded: proto=https"), "https"),
        ((b"Forwarded: proto=https",), "https"),
        ((b'Forwarded: for=1.2.3.4;proto="https"',), "https"),
        ((b"Forwarded: proto=https, for=1.2.3.4;proto=http",), "http"),
        ((b"X-Forwarded-Proto: ftp",), "http"),
        ((b"X-Forwarded-Proto:",), "http"),
        ((b"X-Forwarded-Proto: httpsx",), "http"),
        ((b"X-Forwarded-SSL: on", b"X-Forwarded-Protocol: ssl", b"Front-End-Https: on"), "http"),
    ],
)
def test_the_scheme_is_what_all_proxies_agree_on(fields: tuple[bytes, ...], scheme: str) -> None:
    assert environ_of(*fields, peer=NEAR, trusted=PROXIES)["wsgi.url_scheme"] == scheme


LIES = (b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"Forwarded: for=1.2.3.4;proto=https")


@pytest.mark.parametrize(
    ("peer", "trusted"), [(PEER, PROXIES), (PEER, None), (("", ""), None), (NEAR, None), (PEER, TrustedProxies([]))]
)
def test_from_anyone_else_they_are_ordinary_headers(peer: tuple[str, str], trusted: TrustedProxies | None) -> None:
    environ = environ_of(*LIES, peer=peer, trusted=trusted)
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == peer
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.2.3.4"
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"


def test_the_peer_of_a_unix_socket_is_trusted_where_anyone_is() -> None:
    environ = environ_of(*LIES, peer=("", ""), trusted=PROXIES)
    assert environ["REMOTE_ADDR"] == "1.2.3.4"
    assert environ["wsgi.url_scheme"] == "https"
