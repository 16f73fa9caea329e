"""One client, in the states that no other test brings it into."""

from __future__ import annotations

import socket

from django_prefork.scoreboard import Scoreboard
from tests.worker.host import Host


def test_an_invitation_that_does_not_fit_is_sent_when_it_does() -> None:
    """A client that has not yet read the answers before it, and sends its body only when it is asked to."""
    host = Host(Scoreboard.create(1), 0)
    ours, client = socket.socketpair()
    with client:
        connection = host.welcome(ours)
        filled = 0
        try:
            while True:
                filled += ours.send(b"x" * 1000)
        except BlockingIOError:
            pass
        client.sendall(b"POST /1 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert host.loop.wait(1.0)
        taken = b""
        while len(taken) < filled:
            taken += client.recv(1 << 20)
        assert host.loop.wait(1.0)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not host.loop.wait(0.0), "it waits for the body and for nothing else"
        client.sendall(b"hello")
        assert host.loop.wait(1.0) and host.served == ["/1"]
        connection.close()
    host.loop.close()
