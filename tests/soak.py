"""The server under load for a while: `python -m tests.soak SCENARIO [--seconds 60]`, or all of them with `all`.

    steady    nothing happens: descriptors and memory stay flat, nothing warns
    reload    100 HUPs in a row
    recycle   max_requests=50 on 4 workers
    scale     TTIN and TTOU every 200 ms
    kill      `kill -9` of a random worker every second: what fails is what had reached that process
    arbiter   `kill -9` of the Arbiter, ten times
    handoff   requests fast and slow, with bodies or without, on connections that move between workers, of which one is
              killed every two seconds: no answer is another's or comes twice, nobody hangs, nothing is left open
    saves     --reload: how long a saved template and a saved view take, and 200 saves in a row, one in five broken

Half of the clients keep their connections, which must never be closed; uploads and slow views are among the requests.
Each ends with 1 if a request failed that a worker was able to answer, or a connection was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import requests

from tests import kills
from tests.handoff.wanderers import handoff
from tests.harness import Clients, Server, eventually
from tests.saves import saves

MIB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """All processes of the server at one moment; `rss` in bytes."""

    processes: int
    descriptors: int
    rss: int


def sample(server: Server) -> Sample:
    found = [psutil.Process(pid) for pid in server.processes()]
    return Sample(len(found), sum(p.num_fds() for p in found), sum(p.memory_info().rss for p in found))


class Load:
    """Eight clients: two that connect anew for each request, four that keep their connection, two that upload."""

    def __init__(self, server: Server) -> None:
        self.url = f"http://127.0.0.1:{server.port}/"
        self.fresh = Clients(server, 2, "/")
        self.kept = Clients(server, 2, "/stream", keep_alive=True)
        self.slow = Clients(server, 2, "/slow", keep_alive=True)
        self.uploads = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._uploaders = [threading.Thread(target=self._upload) for _ in range(2)]

    def _upload(self) -> None:
        """Small, spooled, and chunked bodies, in turn; one connection each time."""
        for size in (10, 100_000, 2 * MIB) * 1_000_000:
            data = b"x" * size
            for body in (data, iter([data[: size // 2], data[size // 2 :]])):
                if self._stop.is_set():
                    return
                try:
                    answer = requests.post(self.url, data=body, timeout=30)
                    if answer.status_code != 200 or int(answer.text) != size:
                        self.failures.append(f"upload of {size}: {answer.status_code} {answer.text[:80]}")
                    self.uploads += 1
                except (requests.RequestException, ValueError) as error:
                    self.failures.append(f"upload of {size}: {error!r}")

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        with self.fresh, self.kept, self.slow:
            for thread in self._uploaders:
                thread.start()
            try:
                yield self
            finally:
                self._stop.set()
                for thread in self._uploaders:
                    thread.join()

    @property
    def answers(self) -> int:
        return len(self.fresh.answers) + len(self.kept.answers) + len(self.slow.answers) + self.uploads

    @property
    def all_failures(self) -> list[str]:
        return [*self.failures, *self.fresh.failures, *self.kept.failures, *self.slow.failures]

    def check(self, failures: int = 0) -> None:
        assert len(self.all_failures) <= failures, self.all_failures[:5]
        answers = self.fresh.answers + self.kept.answers + self.slow.answers
        assert {status for status, _ in answers} == {200} and self.uploads
        if not failures:
            assert self.kept.connections == 2 and self.slow.connections == 2, "a keep-alive connection was closed"

    def say(self) -> str:
        made = self.kept.connections + self.slow.connections
        return (
            f"{self.answers} answers, {len(self.all_failures)} failed, {made} connections made by 4 keep-alive clients"
        )


def serve(*arguments: str, workers: int = 3, errors: str = "") -> Server:
    server = Server("--workers", str(workers), *arguments, application="soak", errors=errors)
    server.ready()
    server.full_strength(workers)
    return server


def steady(seconds: float, say: Callable[[str], None]) -> None:
    with serve() as server:
        with Load(server).running() as load:
            samples: list[Sample] = []
            for _ in range(12):
                time.sleep(seconds / 12)  # prefork: ok (the rhythm of looking)
                samples.append(sample(server))
                say(f"{samples[-1].descriptors} descriptors, {samples[-1].rss / MIB:.1f} MiB, {load.say()}")
        load.check()
        # The first third warms caches and pools; connections come and go, a few descriptors with them.
        settled, last = samples[3:8], samples[8:]
        assert max(s.descriptors for s in last) <= max(s.descriptors for s in settled) + 6, samples
        assert min(s.rss for s in last) <= max(s.rss for s in settled) * 1.03, samples
        assert "Warning" not in server.log, server.log
        assert server.stop() == 0


def reload(seconds: float, say: Callable[[str], None], times: int = 100) -> None:
    with serve() as server:
        supervisor = psutil.Process(server.pid)
        with Load(server).running() as load:
            for number in range(2, times + 2):
                server.kill(signal.SIGHUP)
                server.ready(number)
                server.wait_for(rf"arbiter gen={number - 1} leaves: retired")
                if number == 4:
                    before = supervisor.num_fds(), supervisor.memory_info().rss
                if number % 10 == 1:
                    say(f"{number - 1} reloads: {load.say()}")
            eventually(lambda: len(server.processes()) == 5, "one generation is left")
            eventually(lambda: supervisor.num_fds() <= before[0], "the supervisor's descriptors are back")
            after = supervisor.num_fds(), supervisor.memory_info().rss
        load.check()
        assert after[1] <= before[1] * 1.1, (before, after)
        say(f"supervisor: {before} -> {after} descriptors and bytes")
        assert server.stop() == 0


def recycle(seconds: float, say: Callable[[str], None]) -> None:
    with serve("--max-requests", "50", "--max-requests-jitter", "20", workers=4) as server:
        with Load(server).running() as load:
            time.sleep(seconds)  # prefork: ok (the length of the run)
        load.check()
        replaced = server.count("retires: expired")
        assert replaced, "nobody was replaced"
        say(f"{replaced} workers replaced: {load.say()}")
        assert server.stop() == 0


def scale(seconds: float, say: Callable[[str], None]) -> None:
    with serve() as server:
        with Load(server).running() as load:
            chance = random.Random(1)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                server.kill(chance.choice((signal.SIGTTIN, signal.SIGTTOU)))
                time.sleep(0.2)  # prefork: ok (the rhythm of signals)
        load.check()
        changes = server.count("SIGTT")
        assert changes > 1, "nothing was changed"
        say(f"{changes} changes: {load.say()}")
        assert server.stop() == 0


def kill(seconds: float, say: Callable[[str], None]) -> None:
    with serve(errors="was ended by SIGKILL") as server:
        say(kills.run(server, seconds))
        assert server.stop() == 0


def arbiter(seconds: float, say: Callable[[str], None], times: int = 10) -> None:
    with serve(errors="the arbiter gen=") as server:
        with Load(server).running() as load:
            for number in range(1, times + 1):
                server.kill(signal.SIGKILL, server.arbiter(number))
                server.ready(number + 1)
                server.wait_for(rf"gen={number} .* gone", times=1)
                load.fresh.some_more()
        load.check()
        say(f"{times} arbiters killed: {load.say()}")
        assert server.stop() == 0


SCENARIOS: dict[str, Callable[[float, Callable[[str], None]], None]] = {
    "steady": steady,
    "reload": reload,
    "recycle": recycle,
    "scale": scale,
    "kill": kill,
    "arbiter": arbiter,
    "handoff": handoff,
    "saves": saves,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    began = time.monotonic()
    for name in SCENARIOS if options.scenario == "all" else [options.scenario]:
        print(f"{name}:", flush=True)
        SCENARIOS[name](options.seconds, lambda text: print(f"  {time.monotonic() - began:5.0f} s  {text}", flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
