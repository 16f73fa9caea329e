"""A client that says exactly what it is told to, and notes all that comes back.

It never waits for time to pass: a conversation ends when the server closes, or when a probe behind the case is
answered.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

from tests.harness import PATIENCE
from tests.http.judge import Answer, Case, Outcome, read_answers

FIRST = b"GET /first HTTP/1.1\r\nHost: first\r\n\r\n"
PROBE = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"

WAYS = ("whole", "bytes", "cuts", "behind")


def pieces(raw: bytes, way: str, seed: str) -> Iterator[bytes]:
    """`raw` as it is sent: "whole", byte by "bytes", in random "cuts", or whole "behind" a good request."""
    if way == "whole":
        yield raw
    elif way == "behind":
        yield FIRST + raw
    elif way == "bytes":
        # The middle of a long one in larger pieces: its borders are where cutting could matter.
        end = len(raw) - 200
        for index in range(min(1000, len(raw))):
            yield raw[index : index + 1]
        for index in range(1000, end, 997):
            yield raw[index : min(index + 997, end)]
        for index in range(max(1000, end), len(raw)):
            yield raw[index : index + 1]
    else:
        choose = random.Random(seed)
        index = 0
        while index < len(raw):
            size = choose.choice((1, 2, 3, 5, 8, 20, 60, 400, 5000))
            yield raw[index : index + size]
            index += size


def converse(port: int, case: Case, way: str) -> Outcome:
    """Have the conversation of `case` with the server on `port`."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces(case.raw, way, case.id):
                sock.sendall(piece)
            if case.then == "shutdown_wr":
                sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough, and has answered; that is still there to be read
        if case.then == "close":
            return Outcome((), closed=True)
        return _listen(sock, case, behind=way == "behind")


def _listen(sock: socket.socket, case: Case, behind: bool) -> Outcome:
    methods = ["GET", case.method] if behind else [case.method]
    data = b""
    to_send = case.then_data if case.then == "send" else b""
    probed = closed = False
    while True:
        answers = read_answers(data, methods)
        finals = [answer for answer in answers if answer.final]
        if probed and _answers_the_probe(finals):
            return _outcome(answers[:-1], behind, closed=False, serves=True)
        if closed:
            return _outcome(answers, behind, closed=True, serves=None)
        if to_send and len(answers) > behind:
            _send(sock, to_send)
            to_send = b""
        wanted = case.responses + bool(case.second_status) + behind
        if not probed and not to_send and len(finals) >= wanted and all(a.complete and not a.closes for a in finals):
            _send(sock, PROBE)
            probed = True
        try:
            more = sock.recv(65536)
        except TimeoutError:
            return _outcome(answers, behind, closed=False, serves=False if probed else None)
        except ConnectionResetError:
            more = b""
        closed = not more
        data += more


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def _answers_the_probe(finals: list[Answer]) -> bool:
    said = finals[-1].echo if finals else None
    return said is not None and said["path"] == "/probe"


def _outcome(answers: list[Answer], behind: bool, *, closed: bool, serves: bool | None) -> Outcome:
    """Without the answer to the good request in front, which is asserted here."""
    if behind:
        first = answers.pop(0) if answers else None
        assert first is not None and first.echo and first.echo["path"] == "/first", f"the request in front: {first}"
        assert not first.closes
    return Outcome(answers, closed, serves)
