"""`python -m tests.worker.racing [SIGNALS]`: requests that are always late, told so as fast as signals can be sent.

Wherever they hit, each request must be answered once, whole, with the view's answer or an error page, and be closed.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
from collections import Counter, deque
from typing import Any

import django
from django.core.signals import got_request_exception, request_finished, request_started

from django_prefork.config import Config
from django_prefork.deadline import Clock
from django_prefork.http.environ import complete, template
from django_prefork.http.parser import Limits, RequestParser
from django_prefork.scoreboard import Scoreboard
from django_prefork.worker.service import Service
from django_prefork.worker.worker import LATE_SIGNAL

# Not as fast as it can: between two signals a request must come some way.
SENDER = """
import os, random, sys
pid, number, count = map(int, sys.argv[1:])
while os.getppid() == pid and count:
    count -= 1
    os.kill(pid, number)
    for _ in range(random.randrange(2000)):
        pass
"""


class Sink:
    """A client that takes all."""

    peer = ("127.0.0.1", "1")
    label = b"127.0.0.1\n"

    def __init__(self) -> None:
        self.data = b""
        self.files: list[int] = []

    def answer(self, data: bytes) -> None:
        self.data += data

    def send(self, data: bytes, more: bytes = b"") -> None:
        self.data += data + more

    def stream(self) -> Any:
        return self._add

    def _add(self, parts: tuple[bytes, ...], size: int) -> None:
        self.data += b"".join(parts)

    def end_stream(self, last: bytes = b"") -> None:
        self.data += last

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        self.data += os.pread(descriptor, count, offset)
        os.close(descriptor)

    def progressed(self) -> None:
        pass


def plain(environ: dict[str, Any], start_response: Any) -> Any:
    """Pieces, and a `close()` that is counted."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Pieces()


class Pieces:
    """Counted from the first piece on: before that, it may never have left the application."""

    begun = closed = 0

    def __init__(self) -> None:
        self._begun = False

    def __iter__(self) -> Any:
        self._begun = True
        Pieces.begun += 1
        for number in range(20):
            yield b"%d\n" % number

    def close(self) -> None:
        Pieces.closed += self._begun


class Kept(logging.Handler):
    """The last things that went wrong: nothing else says why Django was not told of an answer's end."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=3)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def whole(data: bytes) -> str:
    """What came of an answer: its status, and how it ends. Raises AssertionError where it is none."""
    head, _, body = data.partition(b"\r\n\r\n")
    assert data.count(b"HTTP/1.1 ") == 1, data
    fields = {k.lower(): v for k, _, v in (line.partition(b": ") for line in head.split(b"\r\n")[1:])}
    if b"content-length" in fields:
        assert len(body) == int(fields[b"content-length"]), data
        return head[9:12].decode()
    assert fields[b"transfer-encoding"] == b"chunked", data
    return head[9:12].decode() + (" whole" if body.endswith(b"0\r\n\r\n") else " cut")


def main() -> None:
    signals = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.site.settings"
    django.setup()
    kept = Kept()
    for name, handler in (("django_prefork", kept), ("django", logging.NullHandler())):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    from django.core.wsgi import get_wsgi_application

    board = Scoreboard.create(4)
    row = board.row(0)
    clock = Clock(row, 1e-9, lambda: None)
    clock.use()
    got_request_exception.connect(clock.report)
    told: list[str] = []
    sent: Counter[str] = Counter()
    request_started.connect(lambda **_: sent.update(["started"]), weak=False)
    request_finished.connect(lambda **_: sent.update(["finished"]), weak=False)

    def service(application: Any) -> Service:
        config = Config.of(timeout=0, workers=1)
        others: Any = {"row": row, "slot": 0, "generation": 1, "access_log": None, "clock": clock}
        return Service(application, config, board, expire=told.append, **others)

    shared = template(server_name="h", server_port="80", errors=sys.stderr)
    parser = RequestParser(Limits())
    django_service, plain_service = service(get_wsgi_application()), service(plain)
    kinds = [(django_service, target) for target in (b"/", b"/stream/?s=0&last=0", b"/slow/?s=0.0001", b"/boom/")]
    kinds.append((plain_service, b"/plain"))
    answers: Counter[str] = Counter()
    signal.signal(LATE_SIGNAL, clock.late)
    sender = subprocess.Popen([sys.executable, "-c", SENDER, str(os.getpid()), str(int(LATE_SIGNAL)), str(signals)])
    try:
        while sender.poll() is None:
            serves, target = random.choice(kinds)
            request = parser.parse(b"GET %b HTTP/1.1\r\nHost: localhost" % target, shared.copy())
            complete(request, ("127.0.0.1", "1"), None)
            sink = Sink()
            goes_on = serves.serve(sink, request)
            how = whole(sink.data)
            assert not (goes_on and "cut" in how), how
            answers[f"{target.decode()} {how}"] += 1
            assert sent["started"] == sent["finished"], (sent, sink.data, kept.lines)
            assert Pieces.begun == Pieces.closed
    finally:
        sender.kill()
        sender.wait()
        signal.signal(LATE_SIGNAL, signal.SIG_IGN)
    print(f"{signals} signals, {len(told)} of {sum(answers.values())} requests were told:")
    for how, count in sorted(answers.items()):
        print(f"  {count:7} {how}")


if __name__ == "__main__":
    main()
