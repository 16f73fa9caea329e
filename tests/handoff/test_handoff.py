"""A request waits only while every worker is busy."""

from __future__ import annotations

import collections
import random
import selectors
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.handoff.clients import Beside, Kept, all_busy
from tests.harness import PATIENCE, Clients, Server, eventually


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

        def ask(part: list[Kept], until: float) -> list[int]:
            pids = []
            while time.monotonic() < until:
                for one in part:
                    one.send("/burn?s=0.002")
                pids += [one.read()["pid"] for one in part]
            return pids

        def shares() -> list[float]:
            """Of the requests of one second, what each worker served."""
            until = time.monotonic() + 1.0
            with ThreadPoolExecutor(4) as pool:
                parts = pool.map(lambda at: ask(kept[at::4], until), range(4))
                served = collections.Counter(pid for part in parts for pid in part)
            return sorted(count / served.total() for count in served.values())

        # On a machine with nothing else to do the first second is enough; one that is busy has fewer idle workers.
        eventually(lambda: len(now := shares()) == 4 and now[0] > 0.10 and now[-1] < 0.45, "all four have their share")


def test_requests_that_wait_are_served_in_about_the_order_they_came() -> None:
    def answered(one: Kept, number: int) -> tuple[float, int]:
        assert one.read()["id"] == str(number)
        return time.monotonic(), number

    with all_busy(0.6, kept=20) as (server, kept, _), ThreadPoolExecutor(40) as pool:
        answers = []
        for number in range(40):
            one = kept[number // 2] if number % 2 else Kept(server)
            one.send(f"/sleep?s=0.02&id={number}")
            answers.append(pool.submit(answered, one, number))
            # The kernel's clock for what waits goes in steps of 4 ms, and so does "about".
            time.sleep(0.004)  # prefork: ok (the rhythm of the requests)
        order = [number for _, number in sorted(answer.result() for answer in answers)]
        overtaken = [sum(later > number for later in order[:at]) for at, number in enumerate(order)]
        assert max(overtaken) <= 8, order


def test_new_clients_wait_no_longer_than_kept_ones() -> None:
    """Where all is busy. Were one let in with each turn of the loop, the last would wait for 100 answers to others."""
    with Server("--workers", "1", application="work").ready() as server, selectors.DefaultSelector() as ready:
        server.full_strength(1)
        kept = [Kept(server) for _ in range(12)]
        new: list[Kept] = []
        for one in kept:
            one.get("/pid")
            ready.register(one.sock, selectors.EVENT_READ, one)
            one.send("/burn?s=0.002")
        answered = 0
        coming = 8
        while coming:
            events = ready.select(PATIENCE)
            assert events
            for key, _ in events:
                key.data.read()
                if key.data in new:
                    coming -= 1
                    ready.unregister(key.fileobj)
                    continue
                key.data.send("/burn?s=0.002")
                answered += 1
                if answered == 36:
                    new = [Kept(server) for _ in range(coming)]
                    for one in new:
                        one.send("/burn?s=0.002")
                        ready.register(one.sock, selectors.EVENT_READ, one)
        assert answered - 36 < 5 * len(kept), answered
        for one in (*kept, *new):
            one.close()


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


def test_requests_that_were_read_behind_a_slow_one_are_served_by_the_sibling() -> None:
    """A worker that finds several requests reads them all before it serves the first."""
    with Server("--workers", "2", application="work").ready() as server:
        server.full_strength(2)
        other = Kept(server)
        idle = other.get("/pid")["pid"]
        other.send("/sleep?s=0.5")
        server.wait_for("sleeping")
        slow, *kept = (Kept(server) for _ in range(9))
        (busy,) = {one.get("/pid")["pid"] for one in (slow, *kept)}
        other.read()
        server.kill(signal.SIGSTOP, busy)
        slow.send("/sleep?s=1")
        for number, one in enumerate(kept):
            one.send(f"/pid?id={number}")
        server.kill(signal.SIGCONT, busy)
        server.wait_for("sleeping", times=2)
        answers = [one.read() for one in kept]
        assert [answer["id"] for answer in answers] == [str(number) for number in range(8)]
        assert {answer["pid"] for answer in answers} == {idle}
        assert slow.read()["pid"] == busy


def test_hand_off_can_be_turned_off() -> None:
    with Server("--workers", "2", "--handoff-after", "0", application="work").ready() as server:
        assert [threads_of(pid) for pid in server.full_strength(2)] == [1, 1]


def test_the_guard_sleeps_while_the_worker_is_idle() -> None:
    with Server("--workers", "2", application="work").ready() as server:
        pid, _ = server.full_strength(2)
        server.get("/pid")
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


def soak(seconds: float, kill: bool) -> collections.Counter[str]:
    """Random requests on kept connections, slow and fast ones mixed, while workers are killed.

    Counts what was answered, what was lost, and the kills.
    """
    chance = random.Random(1)
    found: collections.Counter[str] = collections.Counter()
    with Server("--workers", "3", application="work", errors="SIGKILL").ready() as server:
        server.full_strength(3)
        until = time.monotonic() + seconds

        def client(number: int) -> collections.Counter[str]:
            mine = random.Random(number)
            one: Kept | None = None
            fates: collections.Counter[str] = collections.Counter()
            while time.monotonic() < until:
                one = one or Kept(server)
                ident = f"{number}-{fates.total()}"
                path = "/sleep?s=0.03" if mine.random() < 0.2 else "/pid?s=0"
                try:
                    answer: dict[str, Any] = one.get(f"{path}&id={ident}")
                except TimeoutError:
                    raise
                except (OSError, ValueError):  # ValueError: half an answer
                    one.close()
                    one = None
                    fates["lost"] += 1
                    continue
                assert answer["id"] == ident
                fates["answered"] += 1
            return fates

        with ThreadPoolExecutor(16) as pool:
            clients = [pool.submit(client, number) for number in range(16)]
            while kill and time.monotonic() < until:
                time.sleep(0.5)  # prefork: ok (the rhythm of kills)
                if workers := server.workers():
                    server.kill(signal.SIGKILL, chance.choice(workers))
                    found["kills"] += 1
        for each in clients:
            found += each.result()
    assert found["lost"] <= found["kills"] * 16
    return found


def test_a_soak_of_hand_offs_loses_and_mixes_up_nothing() -> None:
    assert soak(4, kill=False)["answered"] > 500


def test_a_soak_of_hand_offs_with_killed_workers_hangs_and_mixes_up_nothing() -> None:
    found = soak(4, kill=True)
    assert found["kills"] > 2 and found["answered"] > 500


def test_no_connection_is_lost_when_workers_come_and_go_beside_slow_requests() -> None:
    with Server("--workers", "2", application="work").ready() as server:
        with Clients(server, 4, "/sleep?s=0.02", keep_alive=True) as kept:
            for generation in (2, 3):
                server.kill(signal.SIGHUP)
                server.ready(generation)
                server.wait_for(f"arbiter gen={generation - 1} leaves: retired")
        assert kept.failures == [] and kept.connections == 4
