"""Whom it believes, by the kind of socket that a proxy comes through."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PATIENCE, Server
from tests.http.judge import read_answers
from tests.wire.tools import to_the_end

LIE = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"


def environ(address: tuple[Any, ...] | str, headers: str = LIE) -> dict[str, str]:
    """What the application was told about a request with these headers."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(address)
        sock.sendall(f"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n".encode())
        (answer,) = read_answers(to_the_end(sock))
    assert answer.echo
    return dict(answer.echo["env"])


def who(address: tuple[Any, ...] | str, headers: str = LIE) -> tuple[str, str]:
    said = environ(address, headers)
    return said["REMOTE_ADDR"], said["wsgi.url_scheme"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # short, as the path of a unix socket has to be
        yield Path(name)


def serve(*flags: str, bind: str) -> Server:
    return Server("--workers", "1", *flags, bind=bind, application="echo").ready()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no socket for both families")
def test_an_ipv4_peer_of_a_socket_for_both_families_is_the_ipv4_address_that_it_is() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        port = both.getsockname()[1]
        for allowed, expected in (("127.0.0.0/8", ("203.0.113.7", "https")), ("::1", (None, "http"))):
            number = both.fileno()
            with Server(
                *("--workers", "1", "--forwarded-allow-ips", allowed),
                bind=f"fd:{number}",
                pass_fds=(number,),
                application="echo",
            ).ready():
                address, scheme = who(("127.0.0.1", port))
                assert scheme == expected[1]
                assert address == expected[0] or (expected[0] is None and address.endswith("127.0.0.1"))
                other = ("203.0.113.7", "https") if allowed == "::1" else ("::1", "http")
                assert who(("::1", port)) == other


@pytest.mark.parametrize("allowed", ["", "192.0.2.1", "*"])
def test_the_peer_of_a_unix_socket_is_always_believed(folder: Path, allowed: str) -> None:
    path = str(folder / "server.sock")
    with serve(*(["--forwarded-allow-ips", allowed] if allowed else []), bind=f"unix:{path}"):
        assert who(path) == ("203.0.113.7", "https")
        assert who(path, "") == ("", "http")


def test_one_server_judges_each_of_its_sockets_by_its_own_peers(folder: Path) -> None:
    path = str(folder / "server.sock")
    with serve("--bind", f"unix:{path}", "--forwarded-allow-ips", "192.0.2.1", bind="127.0.0.1:0") as server:
        assert who(path) == ("203.0.113.7", "https")
        assert who(("127.0.0.1", server.port)) == ("127.0.0.1", "http")


def test_each_request_of_a_connection_is_judged_anew() -> None:
    """A proxy sends many clients' requests through one connection."""
    with serve("--forwarded-allow-ips", "127.0.0.1", bind="127.0.0.1:0") as server:
        requests = [
            ("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n", ("203.0.113.7", "https")),
            ("", ("127.0.0.1", "http")),
            ("X-Forwarded-For: 203.0.113.8\r\nX-Forwarded-Proto: http\r\n", ("203.0.113.8", "http")),
            ("X-Forwarded-Proto: https\r\nForwarded: for=203.0.113.9;proto=http\r\n", ("203.0.113.9", "http")),
            ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", ("127.0.0.1", "http")),
        ]
        raw = "".join(f"GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n" for headers, _ in requests)
        with server.connect() as sock:
            sock.sendall(raw.encode() + b"GET / HTTP/1.0\r\n\r\n")
            answers = read_answers(to_the_end(sock))
        told = [(a.echo["env"]["REMOTE_ADDR"], a.echo["env"]["wsgi.url_scheme"]) for a in answers if a.echo]
        assert told == [*(expected for _, expected in requests), ("127.0.0.1", "http")]


def test_everyone_is_everyone_and_then_the_left_most_address_counts() -> None:
    with serve("--forwarded-allow-ips", "*", bind="127.0.0.1:0") as server:
        headers = "X-Forwarded-For: 198.51.100.1, 203.0.113.7\r\nX-Forwarded-Proto: https, http\r\n"
        assert who(("127.0.0.1", server.port), headers) == ("198.51.100.1", "http")


def test_nobody_believes_a_name_or_a_header_that_the_server_does_not_know() -> None:
    with serve("--forwarded-allow-ips", "127.0.0.1", bind="127.0.0.1:0") as server:
        headers = "X-Real-IP: 203.0.113.7\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Ssl: on\r\n"
        said = environ(("127.0.0.1", server.port), headers + "X_Forwarded_For: 203.0.113.7\r\n")
        assert (said["REMOTE_ADDR"], said["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert (said["HTTP_HOST"], said["SERVER_PORT"]) == ("h", str(server.port))
        assert "HTTP_X_FORWARDED_FOR" not in said
