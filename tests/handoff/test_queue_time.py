"""How long a request waited for a worker, who is told, and what becomes of one that waited too long."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.handoff.clients import Kept, all_busy
from tests.harness import PATIENCE, Server, eventually, read_answer, send

#: What the kernel's clock may be off by (seconds): its steps, and the moment before and after.
STEP = 0.05


def waited(sock: socket.socket) -> float:
    status, _, body = read_answer(sock)
    assert status == 200
    return float(json.loads(body)["waited"])


def test_a_request_that_did_not_wait_says_so() -> None:
    with Server("--workers", "1", application="work").ready() as server:
        kept = Kept(server)
        assert [kept.get("/pid")["waited"] for _ in range(3)] == pytest.approx([0.0] * 3, abs=STEP)
        kept.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_new_kept_and_pipelined_requests_know_how_long_they_waited(workers: int) -> None:
    with all_busy(0.6, kept=1, workers=workers) as (server, (kept,), (pipelining, *_)):
        began = time.monotonic()
        kept.send("/pid")
        pipelining.send("/pid")
        new = server.ask("/pid")
        answers = {
            "kept": kept.read()["waited"],
            "new": waited(new),
            "pipelined": (pipelining.read(), pipelining.read()["waited"])[1],
        }
        most = time.monotonic() - began
        new.close()
        for name, seconds in answers.items():
            assert 0.6 - 0.25 < seconds <= most + STEP, (name, answers)


def test_a_trusted_proxy_says_when_the_request_came_to_it() -> None:
    with Server("--workers", "1", "--forwarded-allow-ips", "127.0.0.1", application="work").ready() as server:
        for text in ("t={:.3f}", "{:.3f}", "t={:.0f}000", "t={:.0f}000000"):
            with server.ask("/pid", f"X-Request-Start: {text.format(time.time() - 10)}") as sock:
                assert 9.0 < waited(sock) < 10.0 + PATIENCE
        # Of another century, from the future, or no time at all: then our own clock alone counts.
        for text in ("t=0", f"t={time.time() + 100:.3f}", "t=abc", "", "nan", "inf"):
            with server.ask("/pid", f"X-Request-Start: {text}") as sock:
                assert waited(sock) < 1.0
    untrusted = f"X-Request-Start: t={time.time() - 10:.3f}"
    with Server("--workers", "1", application="work").ready() as server, server.ask("/pid", untrusted) as sock:
        assert waited(sock) < 1.0


@pytest.mark.parametrize("stops", [False, True], ids=["goes on", "stops"])
def test_of_all_who_waited_too_long_is_told_soon(stops: bool) -> None:
    with Server("--workers", "1", "--queue-timeout", "200ms", application="work").ready() as server:
        blocker = server.ask("/sleep?s=1.5")
        server.wait_for("sleeping")
        late = [server.ask("/pid") for _ in range(10)]
        assert [read_answer(sock)[0] for sock in (blocker, *late)] == [200] + [503] * 10
        if stops:
            assert server.stop() == 0

        def told() -> int:
            lines = [re.search(r"queue_timeout 0.2 s: (\d+) answered with 503", line) for line in list(server.lines)]
            return sum(int(found[1]) for found in lines if found)

        # Nobody asks any more.
        eventually(lambda: told() == 10, "all of them are in the log", 5.0)


def test_who_waited_longer_than_queue_timeout_is_told_to_come_again(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    arguments = ("--workers", "1", "--queue-timeout", "200ms", "--access-log", str(log))
    with Server(*arguments, "--access-log-format", "{status} {queue_time}", application="work").ready() as server:
        blocker = Kept(server)
        blocker.send("/sleep?s=0.6")
        server.wait_for("sleeping")
        with server.ask("/sleep?s=9") as late:
            assert blocker.read()
            status, headers, _ = read_answer(late)
            assert (status, headers["retry-after"], headers.get("connection")) == (503, "1", None)
            # It has not waited since: the connection goes on.
            send(late, "/pid")
            assert waited(late) < 0.2
        blocker.close()
        server.wait_for(r"requests waited longer than queue_timeout 0.2 s: 1 answered with 503, the last one after 0.")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [status for status, _ in lines] == ["200", "503", "200"]
    assert float(lines[1][1]) > 0.2


@pytest.mark.parametrize("kept", [False, True])
def test_who_has_gone_is_not_served_and_who_only_finished_sending_is(kept: bool, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    arguments = ("--workers", "1", "--access-log", str(log), "--access-log-format", "{path}")
    with Server(*arguments, application="work").ready() as server:
        waiting = [server.connect() for _ in range(2)]
        if kept:
            for sock in waiting:
                send(sock, "/first")
                assert read_answer(sock)[0] == 200
        blocker = Kept(server)
        blocker.send("/sleep?s=0.4")
        server.wait_for("sleeping")
        gone, half = waiting
        send(gone, "/gone")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        send(half, "/half")
        half.shutdown(socket.SHUT_WR)
        assert read_answer(half)[0] == 200
        half.close()
        assert blocker.read()
        blocker.get("/last")
        blocker.close()
        eventually(lambda: "/last" in log.read_text(), "the last line")
        assert "/half" in log.read_text()
        assert "/gone" not in log.read_text()
