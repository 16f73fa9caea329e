"""Every example in the tables of docs/http.md, sent to a real server."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.harness import PATIENCE, Server
from tests.http.judge import Answer, read_answers
from tests.test_docs import DOCS, rows

PAGE = DOCS / "http.md"
PROBE = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"


@dataclass(frozen=True)
class Example:
    """A row. `statuses` as told, all of them; `closed`: whether the server closes then."""

    what: str
    flags: str
    raw: bytes
    fin: bool
    statuses: list[int]
    closed: bool


def raw(text: str) -> bytes:
    """The bytes that `text` stands for."""
    while (repeated := re.search(r"\{([^{}]*)\*(\d+)\}", text)) is not None:
        text = text[: repeated.start()] + repeated[1] * int(repeated[2]) + text[repeated.end() :]
    return text.strip(" ").encode("ascii").decode("unicode_escape").encode("latin-1")


def examples() -> Iterator[Example]:
    for name in ("accepted", "refused", "limits", "deadlines", "differently"):
        for row in rows(PAGE, name):
            code = re.fullmatch(r"`([^`]+)`( and FIN)?", row[-2])
            assert code, f"no example in the row {row[0]!r}"
            statuses = [int(word) for word in re.findall(r"\b\d{3}\b", row[-1])]
            closed = "closed" in row[-1] or max(statuses) >= 400
            with_flags = name in ("limits", "deadlines") and row[2] != "-"
            flags = row[2].strip("`") if with_flags else ""
            yield Example(row[0], flags, raw(code[1]), bool(code[2]), statuses, closed)


@cache
def all_examples() -> list[Example]:
    found = list(examples())
    assert len(found) > 70, "the tables are not read"
    return found


def converse(port: int, example: Example) -> tuple[list[Answer], bool]:
    """The answers to the example, and whether the connection was closed behind them."""
    methods = [line.split(b" ")[0].decode("latin-1") for line in example.raw.lstrip().split(b"\r\n\r\n")]
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        try:
            sock.sendall(example.raw)
            if example.fin:
                sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent
        data, probed = b"", False
        while True:
            answers = read_answers(data, methods)
            if not example.closed and not probed and len(answers) >= len(example.statuses) and answers[-1].final:
                sock.sendall(PROBE)
                probed = True
            if not example.closed and answers and answers[-1].status == 100:
                return answers, False  # it waits for the body
            if probed and len(answers) > len(example.statuses):
                assert answers[-1].echo and answers[-1].echo["path"] == "/probe"
                return answers[:-1], False
            try:
                more = sock.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return answers, True
            data += more


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """By the flags that they were started with."""
    found: dict[str, Server] = {}
    try:
        for flags in dict.fromkeys(example.flags for example in all_examples()):
            arguments = ("--workers", "1", *shlex.split(flags))
            found[flags] = Server(*arguments, application="echo", errors="spool_limit of 0 bytes reached")
        yield {flags: server.ready() for flags, server in found.items()}
    finally:
        for server in found.values():
            server.__exit__(None, None, None)


@pytest.mark.parametrize("example", all_examples(), ids=lambda example: example.what)
def test_the_answer_is_the_one_on_the_page(example: Example, servers: dict[str, Server]) -> None:
    answers, closed = converse(servers[example.flags].port, example)
    assert [answer.status for answer in answers] == example.statuses
    assert closed is example.closed
    # That it closes is said beforehand, but for an idle connection.
    if answers and "keep-alive 500ms" not in example.flags and not example.fin:
        assert answers[-1].closes is example.closed


def test_every_status_that_the_server_has_of_its_own_is_on_the_page() -> None:
    package = DOCS.parent / "django_prefork"
    used = {
        int(status)
        for path in [*(package / "http").glob("*.py"), *(package / "worker").glob("*.py")]
        for status in re.findall(r"HttpError\((?:[^,()]* if [^,]* else )?(\d{3})", path.read_text())
    }
    assert used == {status for example in all_examples() for status in example.statuses if status >= 400}


# -- behind a proxy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", dict.fromkeys(row[0] for row in rows(PAGE, "proxies")))
def test_whom_a_trusted_proxy_names_is_who_the_page_says(allowed: str) -> None:
    flags = ["--forwarded-allow-ips", allowed.replace(" ", "")] if allowed != "nobody" else []
    with Server("--workers", "1", *flags, application="echo").ready() as server:
        for told, headers, address, scheme in rows(PAGE, "proxies"):
            if told == allowed:
                lines = "".join(f"{header}\r\n" for header in re.findall(r"`([^`]+)`", headers))
                request = f"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{lines}\r\n".encode()
                example = Example("", "", request, False, [200], True)
                (answer,), _ = converse(server.port, example)
                assert answer.echo
                environ = answer.echo["env"]
                assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (address, scheme), headers
