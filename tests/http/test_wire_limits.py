"""Over a real socket: limits that are set, patience that ends, bodies on disk, and whom to believe."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.harness import PATIENCE, Server
from tests.http.cases.make import chunked, get, post
from tests.http.client import PROBE
from tests.http.judge import Answer, read_answers


class Conversation:
    """One connection."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        self.data = b""

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> Conversation:
        self.sock.sendall(data)
        return self

    def answers(self, count: int = 1) -> list[Answer]:
        """The first `count` answers; the connection may stay open."""
        while len([answer for answer in read_answers(self.data) if answer.complete]) < count:
            more = self.sock.recv(1 << 20)
            assert more, f"closed after {self.data[:1000]!r}"
            self.data += more
        return read_answers(self.data)

    def to_the_end(self) -> list[Answer]:
        """All answers until the server closes."""
        try:
            while more := self.sock.recv(1 << 20):
                self.data += more
        except ConnectionResetError:
            pass
        return read_answers(self.data)


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


def still_serves(server: Server) -> None:
    with Conversation(server).send(PROBE) as conversation:
        assert statuses(conversation.answers()) == [200]


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (get(line=b"GET /" + b"a" * 50 + b" HTTP/1.1"), 200),
        (get(line=b"GET /" + b"a" * 51 + b" HTTP/1.1"), 414),
        (get(b"X: " + b"a" * 61), 200),
        (get(b"X: " + b"a" * 62), 431),
        (get(b"A: 1", b"B: 2"), 200),
        (get(b"A: 1", b"B: 2", b"C: 3"), 431),
        (post(b"", b"Content-Length: 1048577"), 413),
        (post(b"", b"Content-Length: 1048577", b"Expect: 100-continue"), 413),
        (chunked(b"100001\r\n"), 413),
        (chunked(b"7a120\r\n", b"x" * 500_000, b"\r\n", b"927c1\r\n"), 413),
        (chunked(b"0\r\n" + b"A: 1\r\n" * 3 + b"\r\n"), 200),
        (chunked(b"0\r\n" + b"A: 1\r\n" * 4 + b"\r\n"), 431),
        # More than spool_limit, and less than limit_request_body.
        (post(b"x" * 700_000, b"Content-Length: 700000"), 507),
        (chunked(b"aae60\r\n" + b"x" * 700_000 + b"\r\n0\r\n\r\n"), 507),
        (post(b"x" * 500_000, b"Content-Length: 500000"), 200),
        (post(b"x" * 560_000, b"Content-Length: 560000"), 200),
    ],
)
def test_limits_are_those_that_are_set(tight_server: Server, raw: bytes, status: int) -> None:
    for _ in range(2):  # what one took, it has given back to the next
        with Conversation(tight_server) as conversation:
            try:
                conversation.send(raw)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answers = conversation.answers() if status == 200 else conversation.to_the_end()
            assert statuses(answers) == [status]
            assert answers[0].closes is (status != 200)
    still_serves(tight_server)


# -- patience ----------------------------------------------------------------------------------------------------------


PATIENCE_ENDS: list[tuple[bytes, list[int]]] = [
    (b"", []),
    (b"G", [408]),
    (b"\r\n", []),
    (get()[:-2], [408]),
    (get(), [200]),
    (get() + b"GET / HT", [200, 408]),
    (post(b"hell", b"Content-Length: 5"), [408]),
    (chunked(b"5\r\nhello\r\n"), [408]),
    (chunked(b"5\r\nhello\r\n0\r\n"), [408]),
    (post(b"", b"Content-Length: 5", b"Expect: 100-continue"), [100, 408]),
]


def test_nobody_is_waited_for_for_ever(tight_server: Server) -> None:
    """Half a request is told so; who has said nothing, or has been answered, is just left."""
    with contextlib.ExitStack() as stack:
        # All at once: one wait is enough for them all.
        conversations = [stack.enter_context(Conversation(tight_server)).send(raw) for raw, _ in PATIENCE_ENDS]
        for conversation, (raw, expected) in zip(conversations, PATIENCE_ENDS, strict=True):
            answers = conversation.to_the_end()
            assert statuses(answers) == expected, raw
            assert all(answer.closes for answer in answers if answer.status == 408)


# -- nothing behind an error, nothing of half a body -------------------------------------------------------------------


def test_a_client_that_goes_on_behind_an_error_is_heard_no_more(echo_server: Server) -> None:
    with Conversation(echo_server) as conversation:
        try:
            for _ in range(1000):
                conversation.send(b"nonsense\r\n\r\n" + PROBE * 100)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert statuses(conversation.to_the_end()) == [400]
    still_serves(echo_server)


def test_half_a_body_never_reaches_the_application(tight_server: Server) -> None:
    """What the application has served is in the access log; the last request is there, so all before it would be."""
    halves = [
        post(b"hell", b"Content-Length: 5", line=b"POST /half-1 HTTP/1.1"),
        post(b"", b"Content-Length: 5", line=b"POST /half-2 HTTP/1.1"),
        post(b"5\r\nhello\r\n", b"Transfer-Encoding: chunked", line=b"POST /half-3 HTTP/1.1"),
        post(b"5\r\nhello\r\n0\r\n", b"Transfer-Encoding: chunked", line=b"POST /half-4 HTTP/1.1"),
        b"GET /half-5 HTTP/1.1\r\nHost: h\r\n",
    ]
    for half in halves:
        with Conversation(tight_server).send(half):
            pass  # gone at once
        with Conversation(tight_server).send(half) as conversation:
            conversation.sock.shutdown(socket.SHUT_WR)
            assert statuses(conversation.to_the_end()) == [400]
        with Conversation(tight_server).send(half) as conversation:
            # A reset instead of an orderly end.
            conversation.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Conversation(tight_server).send(get(line=b"GET /the-last HTTP/1.1")) as conversation:
        conversation.answers()
    tight_server.wait_for(r'"GET /the-last HTTP/1.1" 200')
    assert not tight_server.count(r"/half-\d HTTP/1.1\" 200")


def test_fifty_pipelined_requests_in_one_segment_are_answered_in_order(echo_server: Server) -> None:
    raw = b"".join(get(line=b"GET /%d HTTP/1.1" % number) for number in range(50))
    with Conversation(echo_server).send(raw) as conversation:
        answers = conversation.answers(50)
        assert [(answer.echo or {})["path"] for answer in answers] == [f"/{number}" for number in range(50)]


def test_pipelined_bodies_stay_in_step(echo_server: Server) -> None:
    raw = b""
    bodies = []
    for number in range(30):
        body = bytes([65 + number % 26]) * (number * 37)
        bodies.append(body.decode())
        if number % 2:
            raw += post(body, b"Content-Length: %d" % len(body))
        else:
            raw += chunked(b"%x\r\n%b\r\n" % (len(body), body) * bool(body) + b"0\r\n\r\n")
    with Conversation(echo_server).send(raw) as conversation:
        assert [(answer.echo or {})["body"] for answer in conversation.answers(30)] == bodies


# -- whom to believe ---------------------------------------------------------------------------------------------------


def test_a_trusted_proxy_is_believed_and_nobody_else(tight_server: Server, echo_server: Server) -> None:
    raw = get(b"X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1", b"X-Forwarded-Proto: https")
    for server, address, scheme in ((tight_server, "1.2.3.4", "https"), (echo_server, "127.0.0.1", "http")):
        with Conversation(server).send(raw) as conversation:
            environ = json.loads(conversation.answers()[0].body)["env"]
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (address, scheme)
            assert environ["HTTP_X_FORWARDED_FOR"] == "6.6.6.6, 1.2.3.4, 10.0.0.1"
            if server is echo_server:
                assert environ["REMOTE_PORT"] == str(conversation.sock.getsockname()[1])


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answering_server() -> Iterator[Server]:
    environment = {"TEST_APPLICATION": "tests.http.applications.answers"}
    errors = r"as asked|the application failed|malformed value|not one that HTTP knows|Content-Length of \d+: c"
    with Server("--workers", "1", environment=environment, errors=errors).ready() as server:
        yield server


BIG = 3_000_000


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("path", "status", "size", "stays"),
    [
        (b"/one?size=5", 200, 5, True),
        (b"/one?size=%d" % BIG, 200, BIG, True),
        (b"/one?size=0", 200, 0, True),
        (b"/one?size=5&length=3", 200, 3, True),
        (b"/one?size=5&status=204+x", 204, 0, True),
        (b"/one?size=5&status=304+x", 304, 0, True),
        (b"/one?size=5&connection=close", 200, 5, False),
        (b"/stream?size=900000", 200, 900_000, True),
        (b"/stream?size=%d&piece=100000" % BIG, 200, BIG, True),
        (b"/stream?size=5000&length=5000", 200, 5000, True),
        (b"/stream?size=5000&length=1500", 200, 1500, True),
        (b"/stream?size=0", 200, 0, True),
        (b"/stream?size=5&status=204+x", 204, 0, True),
        (b"/write?size=5000", 200, 5000, True),
        (b"/write?size=%d&length=%d" % (BIG, BIG), 200, BIG, True),
        (b"/file?size=5", 200, 5, True),
        (b"/file?size=0", 200, 0, True),
        (b"/file?size=%d" % BIG, 200, BIG, True),
        (b"/file?size=5&length=3", 200, 3, True),
        (b"/file?size=5&status=304+x", 304, 0, True),
        (b"/packed?size=50000", 200, 50000, True),
        (b"/raise", 500, 26, False),
        (b"/bad?size=5", 500, 26, False),
        (b"/one?size=5&status=100+Continue", 500, 26, False),
    ],
)
def test_an_answer_ends_where_the_next_one_begins(
    answering_server: Server, path: bytes, status: int, size: int, stays: bool, method: bytes
) -> None:
    raw = get(line=method + b" " + path + b" HTTP/1.1")
    with Conversation(answering_server).send(raw + get(line=b"GET /one?size=7 HTTP/1.1")) as conversation:
        # The second answer's body; or the end.
        while not conversation.data.endswith(b"x" * 7) and (more := conversation.sock.recv(1 << 20)):
            conversation.data += more
        answers = read_answers(conversation.data, [method.decode(), "GET"])
        assert answers[0].status == status
        assert len(answers[0].body) == (size if method == b"GET" else 0)
        assert answers[0].complete
        assert answers[0].closes is not stays
        assert statuses(answers[1:]) == ([200] if stays else [])
        assert not stays or answers[1].body == b"x" * 7


@pytest.mark.parametrize(
    ("path", "size"),
    [
        (b"/stream?size=5000&raise=1", 5000),
        (b"/stream?size=5000&length=6000", 5000),
        (b"/stream?size=5000&length=6000&raise=1", 5000),
        (b"/one?size=5&length=6", 5),
        (b"/file?size=5&length=6", 5),
    ],
)
def test_an_answer_that_lacks_its_end_is_seen_to(answering_server: Server, path: bytes, size: int) -> None:
    raw = get(line=b"GET " + path + b" HTTP/1.1")
    with Conversation(answering_server).send(raw + get(line=b"GET /one?size=7 HTTP/1.1")) as conversation:
        (answer,) = conversation.to_the_end()
        assert (answer.status, len(answer.body), answer.complete) == (200, size, False)


@pytest.mark.parametrize("size", [0, 5, 512 * 1024, 512 * 1024 + 1, 2_000_000])
def test_a_body_comes_through_whole_in_memory_and_on_disk(answering_server: Server, size: int) -> None:
    body = os.urandom(size)
    pieces = [body[start : start + 70_000] for start in range(0, size, 70_000)]
    in_chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    line = b"POST /body HTTP/1.1"
    with Conversation(answering_server) as conversation:
        conversation.send(post(body, b"Content-Length: %d" % size, line=line))
        conversation.send(post(in_chunks, b"Transfer-Encoding: chunked", line=line))
        answers = conversation.answers(2)
        assert [answer.body == body for answer in answers] == [True, True]
