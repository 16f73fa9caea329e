"""500 half heads, 500 half bodies, 500 silent clients and 100 that do not read 10 MiB, all on one worker.

`python -m tests.wire.siege` says what they cost it: how long a new client waits meanwhile, the worker's memory, and
when each of them was gone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.harness import PATIENCE, Server
from tests.wire.tools import ask, connect, descriptors, private, serve, to_the_end, worker_of

MIB = 1024 * 1024
HALF_HEAD = b"GET /half-head HTTP/1.1\r\nHost: h\r\nX-Half: "
HALF_BODY = b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n" + b"x" * 50
LARGE = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n"

#: The deadlines that are set, in seconds: (flag, value).
DEADLINES = {"--header-timeout": 2.0, "--body-timeout": 2.0, "--keep-alive": 2.5, "--send-timeout": 2.0}


@dataclass
class Party:
    """Clients that all do the same, `socks`: since when.

    `ends`: seconds from when all of them were there to the end of each; `heard`: what each was told.
    """

    name: str
    sends: bytes
    count: int
    deadline: float
    reads: bool = True
    socks: dict[socket.socket, float] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)


@dataclass
class Siege:
    """What was measured: `waits` of new clients in seconds, private memory of the worker in bytes."""

    parties: list[Party]
    waits: list[float]
    before: int
    peak: int
    after: int
    descriptors: tuple[int, int, int]


def run(server: Server, scale: float = 1.0) -> Siege:
    parties = [
        Party("who do not read", LARGE, int(100 * scale), DEADLINES["--send-timeout"], reads=False),
        Party("half heads", HALF_HEAD, int(500 * scale), DEADLINES["--header-timeout"]),
        Party("half bodies", HALF_BODY, int(500 * scale), DEADLINES["--body-timeout"]),
        Party("silent", b"", int(500 * scale), DEADLINES["--keep-alive"]),
    ]
    descriptors(sum(party.count for party in parties))
    worker = worker_of(server)
    for _ in range(50):
        ask(server)
    before = private(worker)
    open_before = worker.num_fds()
    with selectors.DefaultSelector() as selector:
        try:
            return _besiege(server, parties, selector, before, open_before)
        finally:
            for party in parties:
                for sock in party.socks:
                    sock.close()


def _besiege(
    server: Server, parties: list[Party], selector: selectors.BaseSelector, before: int, open_before: int
) -> Siege:
    worker = worker_of(server)
    kept_before = kept(worker.pid)
    for party in parties:
        for _ in range(party.count):
            sock = connect(server, party.sends)
            party.socks[sock] = 0.0
            if party.reads:
                selector.register(sock, selectors.EVENT_READ, party)
        # Until all of them have been heard: each 10 MiB takes its time to be made, and nobody's deadline runs before.
        ask(server)
        party.socks = dict.fromkeys(party.socks, time.monotonic())
    waits: list[float] = []
    peak = open_peak = 0
    reading = sum(party.count for party in parties if party.reads)
    give_up = time.monotonic() + PATIENCE
    deaf_gone = 0.0
    assert kept(worker.pid) > kept_before
    while reading or not deaf_gone:
        assert time.monotonic() < give_up, f"{reading} clients, {worker.num_fds() - open_before} descriptors are left"
        waits.append(ask(server))
        peak = max(peak, private(worker))
        open_peak = max(open_peak, worker.num_fds())
        if not deaf_gone and kept(worker.pid) == kept_before:
            deaf_gone = time.monotonic()
            for party in parties:
                party.ends += [deaf_gone - since for since in party.socks.values() if not party.reads]
        for key, _ in selector.select(0.01):
            sock, party = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            party.heard.append(to_the_end(sock))
            party.ends.append(time.monotonic() - party.socks[sock])
            selector.unregister(sock)
            sock.close()
            reading -= 1
    for party in parties:
        if not party.reads:
            for sock in party.socks:
                party.heard.append(to_the_end(sock))
    after = private(worker)
    return Siege(parties, waits, before, peak, after, (open_before, open_peak, worker.num_fds()))


def kept(pid: int) -> int:
    """How many files without a name a process has open: what waits for a client waits in one."""
    count = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/{pid}/fd/{number}").endswith(" (deleted)")
    return count


def begin() -> Server:
    return serve(*(word for flag, value in DEADLINES.items() for word in (flag, str(value))))


def told(siege: Siege) -> Iterator[str]:
    waits = sorted(siege.waits)
    yield f"{len(waits)} new clients: median {waits[len(waits) // 2] * 1000:.1f} ms, worst {waits[-1] * 1000:.1f} ms"
    memory = ", ".join(f"{size / MIB:.1f}" for size in (siege.before, siege.peak, siege.after))
    yield f"private memory of the worker before, at its peak, and after: {memory} MiB"
    yield "its descriptors before, at their peak, and after: {}, {}, {}".format(*siege.descriptors)
    for party in siege.parties:
        said = " or ".join(sorted({heard[9:12].decode() or "nothing" for heard in party.heard}))
        ends = f"{min(party.ends):.1f} to {max(party.ends):.1f} s"
        yield f"{party.count} {party.name}: told {said}, gone after {ends}; the deadline is {party.deadline:g} s"


def main() -> int:
    with begin() as server:
        for line in told(run(server)):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
