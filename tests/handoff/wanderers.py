"""Clients whose connections move between workers, of which some are killed: `python -m tests.soak handoff`."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from tests.harness import Server, eventually


def connections(server: Server) -> list[Any]:
    """All that any process of it has open; listeners are none."""
    return [one for pid in server.processes() for one in psutil.Process(pid).net_connections() if one.raddr]


def descriptors(server: Server) -> int:
    return sum(psutil.Process(pid).num_fds() for pid in server.processes())


class Wanderer:
    """One client on one kept connection, made anew when it breaks: each answer must be the one to its own request."""

    def __init__(self, server: Server, number: int, until: float) -> None:
        self.asked = self.answered = self.broken = 0
        self.pids: set[int] = set()
        self.wrong: list[str] = []
        self._server = server
        self._chance = random.Random(number)
        self._number = number
        self._until = until
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
        while time.monotonic() < self._until:
            self.asked += 1
            ident = f"{self._number}-{self.asked}"
            seconds = self._chance.choice((0, 0, 0, 0, 0.002, 0.02, 0.1))
            body = self._chance.randbytes(self._chance.choice((0, 0, 10, 5_000, 100_000, 700_000)))
            try:
                connection.request("POST", f"/?id={ident}&s={seconds}", body)
                answer = json.loads(connection.getresponse().read())
            except TimeoutError:
                self.wrong.append(f"{ident} hangs")
                return
            except (OSError, http.client.HTTPException):
                self.broken += 1
                connection.close()
                continue
            self.answered += 1
            self.pids.add(answer["pid"])
            if (answer["id"], answer["sha256"]) != (ident, hashlib.sha256(body).hexdigest()):
                self.wrong.append(f"{ident} got {answer}")
            if self._chance.random() < 0.002:  # it goes, another one comes
                connection.close()
        # Nothing may come that nobody asked for.
        sock = connection.sock
        if sock is not None:
            sock.settimeout(0.2)
            try:
                if sock.recv(1):
                    self.wrong.append(f"{self._number} got more than it asked for")
            except OSError:
                pass
        connection.close()


def handoff(seconds: float, say: Callable[[str], None], kills: bool = True) -> None:
    with Server("--workers", "4", application="digest", errors="was ended by SIGKILL") as server:
        server.ready()
        server.full_strength(4)
        idle = descriptors(server)
        began = time.monotonic()
        clients = [Wanderer(server, number, began + seconds) for number in range(24)]
        chance, killed = random.Random(1), 0
        while time.monotonic() < began + seconds:
            time.sleep(2)  # prefork: ok (the rhythm of kills)
            workers = server.workers()
            if kills and workers and time.monotonic() < began + seconds - 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    killed += 1
        for client in clients:
            client.thread.join(60)
        wrong = [text for client in clients for text in client.wrong]
        wrong += [f"{client} hangs" for client in clients if client.thread.is_alive()]
        assert not wrong, wrong[:5]
        broken = sum(client.broken for client in clients)
        assert broken <= killed * len(clients)
        # All that was opened is closed again, in every process; listeners are not counted.
        eventually(lambda: not connections(server), "every connection is closed")
        eventually(lambda: descriptors(server) <= idle, "every descriptor is closed")
        assert kills or not broken
        moved = sum(len(client.pids) for client in clients) / len(clients)
        answered = sum(client.answered for client in clients)
        say(f"{answered} answers, {killed} kills, {broken} connections broken, {moved:.1f} workers for each client")
        assert server.stop() == 0
