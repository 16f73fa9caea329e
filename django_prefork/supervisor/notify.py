"""What systemd is told (sd_notify(3)): one datagram for each change, to the socket that NOTIFY_SOCKET names.

systemd accepts them from the main process only, which is this one. Without NOTIFY_SOCKET all of this does nothing.
"""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """`environment` holds the variables that systemd set for the server."""

    NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {name: environment[name] for name in self.NAMES if name in environment}
        self._socket: socket.socket | None = None
        self._address = self.environment.get("NOTIFY_SOCKET", "")
        if self._address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            if self._address.startswith("@"):
                self._address = "\0" + self._address[1:]
        self._period = self._watchdog()
        #: When the watchdog is to be told next (monotonic seconds); None: it does not ask.
        self.next = time.monotonic() if self._period else None

    def _watchdog(self) -> float:
        """Half of what systemd waits, in seconds; 0: no watchdog."""
        if self._socket is None or self.environment.get("WATCHDOG_PID") not in (None, str(os.getpid())):
            return 0.0
        try:
            return int(self.environment.get("WATCHDOG_USEC", "0")) / 2e6
        except ValueError:
            return 0.0

    def keep_alive(self) -> None:
        """The loop turns: say so, as often as asked."""
        if self.next is not None and time.monotonic() >= self.next:
            self.next = time.monotonic() + self._period
            self._send("WATCHDOG=1")

    def ready(self, generation: int) -> None:
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS=Serving, generation {generation}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def failed(self) -> None:
        self._send("READY=1", "STATUS=Serving the old code: the reload failed")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=Stopping")

    def _send(self, *words: str) -> None:
        if self._socket is not None:
            try:
                self._socket.sendto("\n".join(words).encode(), self._address)
            except OSError:
                pass  # systemd being busy or gone must not stop the server
