"""`python -m tests.soak [--seconds 60]`: the server under mixed load in development mode; nothing may grow.

Prints a table of descriptors and memory, and ends with 1 if either grew, a request failed, or a warning was logged.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from dataclasses import dataclass

import psutil
import requests

from tests.harness import Clients, Server

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


def uploads(url: str, stop: threading.Event, failures: list[str]) -> None:
    """Small, spooled, and chunked bodies, in turn."""
    sizes = (10, 100_000, 2 * MIB)
    with requests.Session() as session:
        while not stop.is_set():
            for size in sizes:
                data = b"x" * size
                for body in (data, iter([data[: size // 2], data[size // 2 :]])):
                    answer = session.post(url, data=body)
                    if answer.status_code != 200 or int(answer.text) != size:
                        failures.append(f"{answer.status_code} {answer.text[:80]}")


def soak(seconds: float, *, say: bool = False) -> None:
    """Raises AssertionError if anything grew or failed."""
    with Server("--workers", "3", application="soak") as server:
        server.ready()
        server.full_strength(3)
        url = f"http://127.0.0.1:{server.port}/"
        stop = threading.Event()
        failures: list[str] = []
        uploader = threading.Thread(target=uploads, args=(url, stop, failures))
        with Clients(server, 2, "/") as fresh, Clients(server, 2, "/stream", keep_alive=True) as kept:
            uploader.start()
            samples: list[Sample] = []
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                time.sleep(seconds / 12)  # prefork: ok (the rhythm of looking)
                samples.append(sample(server))
                if say:
                    now = samples[-1]
                    print(
                        f"{time.monotonic() - began:5.0f} s  {now.processes} processes  {now.descriptors} descriptors  "
                        f"{now.rss / MIB:.1f} MiB  {len(fresh.answers) + len(kept.answers)} answers",
                        flush=True,
                    )
            stop.set()
            uploader.join()
        failures += fresh.failures + kept.failures
        assert not failures, failures[:3]
        assert {status for status, _ in fresh.answers + kept.answers} == {200}
        # The first third warms caches and pools; connections come and go, a few descriptors with them.
        settled, last = samples[3:8], samples[8:]
        assert max(s.descriptors for s in last) <= max(s.descriptors for s in settled) + 4, samples
        assert min(s.rss for s in last) <= max(s.rss for s in settled) * 1.03, samples
        assert "Warning" not in server.log, server.log
        assert server.stop() == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    soak(parser.parse_args().seconds, say=True)
    print("nothing grew, nothing failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
