"""A request waits only while every worker is busy."""

from __future__ import annotations

import collections
import random
import signal
import subprocess
import threading
import time
from typing import Any

import pytest

from tests.handoff.clients import Beside, Kept
from tests.harness import Clients, Server, eventually


@pytest.mark.parametrize(
    ("slow", "most"),
    [
        ("/sleep?s=0.2", 0.050),
        ("/burn?s=0.2", 0.100),
        ("/sqlite?s=0.2", 0.050),
    ],
)
def test_fast_requests_do_not_wait_for_a_slow_one_in_the_same_worker(slow: str, most: float) -> None:
    """Without hand-off the fast ones wait 200 ms. `python -m benchmarks.tail` says how long they do: a few ms."""
    with Server("--workers", "2", application="work").ready() as server:
        server.full_strength(2)
        beside = Beside(server, 10, slow, 3.0)
        assert beside.slow_answers >= 5
        assert beside.percentile(0.95) < most, f"{beside.percentile(0.95) * 1000:.1f} ms"


def test_connections_spread_over_the_workers_that_come() -> None:
    with Server("--workers", "1", application="work").ready() as server:
        (first,) = server.full_strength(1)
        kept = [Kept(server) for _ in range(64)]
        assert {one.get("/pid")["pid"] for one in kept} == {first}
        for number in (2, 3, 4):
            server.kill(signal.SIGTTIN)
            server.wait_for(f"SIGTTIN: {number} workers")
        server.full_strength(4)
        served: collections.Counter[int] = collections.Counter()

        def ask(part: list[Kept], until: float) -> None:
            while time.monotonic() < until:
                for one in part:
                    one.send("/burn?s=0.002")
                for one in part:
                    served[one.read()["pid"]] += 1

        def shares() -> list[float]:
            """Of the requests of one second, what each worker served."""
            served.clear()
            until = time.monotonic() + 1.0
            threads = [threading.Thread(target=ask, args=(kept[at::4], until)) for at in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return sorted(count / served.total() for count in served.values())

        # On a machine with nothing else to do the first second is enough; one that is busy has fewer idle workers.
        eventually(lambda: len(now := shares()) == 4 and now[0] > 0.10 and now[-1] < 0.45, "all four have their share")


def test_requests_that_wait_are_served_in_about_the_order_they_came() -> None:
    with Server("--workers", "2", application="work").ready() as server:
        server.full_strength(2)
        kept = [Kept(server) for _ in range(20)]
        for one in kept:
            one.get("/pid")
        blockers = [Kept(server) for _ in range(2)]
        for one in blockers:
            one.send("/sleep?s=0.6")
        server.wait_for("sleeping", times=2)
        answers: list[tuple[float, int]] = []
        threads = []
        for number in range(40):
            one = kept[number // 2] if number % 2 else Kept(server)
            one.send(f"/sleep?s=0.02&id={number}")

            def read(one: Kept = one, number: int = number) -> None:
                assert one.read()["id"] == str(number)
                answers.append((time.monotonic(), number))

            threads.append(threading.Thread(target=read))
            threads[-1].start()
            # The kernel's clock for what waits goes in steps of 4 ms, and so does "about".
            time.sleep(0.004)  # prefork: ok (the rhythm of the requests)
        for thread in threads:
            thread.join()
        order = [number for _, number in sorted(answers)]
        assert sorted(order) == list(range(40))
        overtaken = [sum(later > number for later in order[:at]) for at, number in enumerate(order)]
        assert max(overtaken) <= 8, order


def test_bytes_already_read_travel_along() -> None:
    """Half a head, and pipelined requests: what the stuck worker has read of them is served by its sibling."""
    with Server("--workers", "2", application="work").ready() as server:
        server.full_strength(2)
        # All connections at one worker: the other is busy while they are opened.
        other = Kept(server)
        busy = other.get("/pid")["pid"]
        other.send("/sleep?s=0.5")
        server.wait_for("sleeping")
        half, pipelined, slow = Kept(server), Kept(server), Kept(server)
        assert {one.get("/pid")["pid"] for one in (half, pipelined, slow)} != {busy}
        assert other.read()["pid"] == busy
        half.sock.sendall(b"GET /pid?id=half HTTP/1.1\r\nHo")
        pipelined.get("/pid")
        slow.send("/sleep?s=1")
        server.wait_for("sleeping", times=2)
        half.sock.sendall(b"st: x\r\n\r\n")
        pipelined.send("/pid?id=1")
        pipelined.send("/pid?id=2")
        assert (half.read()["id"], pipelined.read()["id"], pipelined.read()["id"]) == ("half", "1", "2")
        slow.read()


def test_hand_off_can_be_turned_off() -> None:
    with Server("--workers", "2", "--handoff-after", "0", application="work").ready() as server:
        server.full_strength(2)
        for pid in server.workers():
            assert threads_of(pid) == 1


def test_the_guard_sleeps_while_the_worker_is_idle() -> None:
    with Server("--workers", "2", application="work").ready() as server:
        server.full_strength(2)
        server.get("/pid")
        (pid,) = [pid for pid in server.workers() if pid == int(server.workers()[0])]
        eventually(lambda: threads_of(pid) == 2, "the guard is there")

        def switches() -> int:
            total = 0
            for thread in subprocess.check_output(["ls", f"/proc/{pid}/task"], text=True).split():
                if thread != str(pid):
                    with open(f"/proc/{pid}/task/{thread}/status") as file:
                        total += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
            return total

        def rests() -> bool:
            before = switches()
            time.sleep(1)  # prefork: ok (idleness itself)
            return switches() == before

        eventually(rests, "it does not wake up")


def threads_of(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))


def test_a_lone_worker_has_no_guard_until_a_sibling_comes() -> None:
    with Server("--workers", "1", application="work").ready() as server:
        (pid,) = server.full_strength(1)
        assert threads_of(pid) == 1
        server.kill(signal.SIGTTIN)
        eventually(lambda: threads_of(pid) == 2, "a guard")


def soak(seconds: float, kill: bool) -> dict[str, int]:
    """Random requests on kept connections, slow and fast ones mixed, while workers are killed."""
    chance = random.Random(1)
    with Server("--workers", "3", application="work", errors="SIGKILL").ready() as server:
        server.full_strength(3)
        asked = answered = lost = 0
        lock = threading.Lock()
        until = time.monotonic() + seconds

        def client(number: int) -> None:
            nonlocal asked, answered, lost
            mine = random.Random(number)
            one: Kept | None = None
            count = 0
            while time.monotonic() < until:
                one = one or Kept(server)
                count += 1
                ident = f"{number}-{count}"
                path = "/sleep?s=0.03" if mine.random() < 0.2 else "/pid?s=0"
                try:
                    answer: dict[str, Any] = one.get(f"{path}&id={ident}")
                except (OSError, AssertionError, ValueError):
                    one.close()
                    one = None
                    with lock:
                        lost += 1
                    continue
                assert answer["id"] == ident
                with lock:
                    answered += 1

        threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        kills = 0
        while time.monotonic() < until:
            time.sleep(0.5)  # prefork: ok (the rhythm of kills)
            if kill and (workers := server.workers()):
                server.kill(signal.SIGKILL, chance.choice(workers))
                kills += 1
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a client hangs"
        if not kill:
            assert lost == 0
        assert lost <= kills * 16
        return {"answered": answered, "lost": lost, "kills": kills}


def test_a_soak_of_hand_offs_loses_and_mixes_up_nothing() -> None:
    assert soak(4, kill=False)["answered"] > 500


def test_a_soak_of_hand_offs_with_killed_workers_hangs_and_mixes_up_nothing() -> None:
    soak(4, kill=True)


def test_no_connection_is_lost_when_workers_come_and_go_beside_slow_requests() -> None:
    with Server("--workers", "2", application="work").ready() as server:
        with Clients(server, 4, "/sleep?s=0.02", keep_alive=True) as kept:
            for generation in (2, 3):
                server.kill(signal.SIGHUP)
                server.ready(generation)
                server.wait_for(f"arbiter gen={generation - 1} leaves: retired")
        assert kept.failures == [] and kept.connections == 4
