"""nginx and HAProxy with the configurations of the page, in front of servers with the settings of the page."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable

import pytest

from tests.deploying.tools import Machine, ask, block
from tests.harness import Clients, Server, eventually, free_port
from tests.wire.proxies import Haproxy, Nginx
from tests.wire.tools import needs_tool

NGINX = block("deploying.md: upstream mysite { server unix:/run/mysite/web.sock;")
BEHIND_NGINX = block('deploying.md: PREFORK = { "BIND": "unix:/run/mysite/web.sock",')
HAPROXY = block("deploying.md: defaults")
BEHIND_HAPROXY = block('deploying.md: PREFORK = { "BIND": "0.0.0.0:8000",')

COMMAND = ["python", "manage.py", "runprefork", "--workers", "2", "--access-log", "-"]
# What a client may say to be taken for another.
LIES = {
    "X_Forwarded_For": "6.6.6.6",
    "X_Forwarded_Proto": "https",
    "Forwarded": "for=6.6.6.6;proto=https",
}


class PageNginx(Nginx):
    def __init__(self, site: str) -> None:
        self._site = site
        super().__init__("")

    def _configuration(self, listener: int, upstream: str, options: str, patience: str) -> str:
        temporary = "".join(
            f"{kind}_temp_path {self.path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        site = self._site.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        user = "user root;" if os.geteuid() == 0 else ""
        return (
            f"daemon off; pid {self.path}/nginx.pid; {user} events {{}}\n"
            f"http {{ access_log off; {temporary}\n{site} }}\n"
        )


class PageHaproxy(Haproxy):
    def __init__(self, text: str) -> None:
        self._text = text
        super().__init__("")

    def _configuration(self, listener: int, upstream: str, options: str, patience: str) -> str:
        return self._text.replace("bind :80", f"bind fd@{listener}")


@needs_tool("nginx")
@pytest.mark.parametrize("keeps", [True, False], ids=["keeps", "each-its-own"])
def test_nginx_as_on_the_page(keeps: bool) -> None:
    """And without the two lines that the page says can be left out."""
    with Machine() as machine:
        settings, site = machine.here(BEHIND_NGINX), machine.here(NGINX)
        with open(machine.project / "mysite" / "settings.py", "a") as file:
            file.write(settings)
        machine.socket.parent.mkdir()
        (machine.project / "static" / "x.txt").write_text("static")
        if not keeps:
            site, count = re.subn(r'^ *(?:keepalive 16;|proxy_set_header Connection "";)\n', "", site, flags=re.M)
            assert count == 2
        with machine.serve(COMMAND).ready() as server, PageNginx(site) as nginx:
            status, said = ask(nginx.port, **LIES)
            assert status == 200
            assert (said["address"], said["scheme"], said["host"]) == ("127.0.0.1", "http", "example.com")
            assert ask(nginx.port, "/static/x.txt") == (200, {"text": b"static"})
            assert ask(nginx.port, body=b"x" * 2_000_000)[1]["body"] == 2_000_000
            # Over 100m: refused by its head.
            with socket.create_connection(("127.0.0.1", nginx.port), timeout=30) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 104857601\r\n\r\n")
                assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
            for _ in range(5):
                status, said = ask(nginx.port)
                assert (status, said["connection"]) == (200, "" if keeps else "close")
            server.kill(signal.SIGHUP)
            server.ready(2)
            server.wait_for("arbiter gen=1 leaves: retired")
            assert ask(nginx.port)[0] == 200
            assert server.stop() == 0


@needs_tool("haproxy")
def test_haproxy_as_on_the_page() -> None:
    """One of the two servers stops under load, and comes back."""
    with Machine() as machine:
        settings = (
            BEHIND_HAPROXY.replace("10.0.0.10", "127.0.0.1")
            .replace('"BIND": "0.0.0.0:8000",', "")
            .replace("3s", "1500ms")
        )
        assert settings != BEHIND_HAPROXY
        with open(machine.project / "mysite" / "settings.py", "a") as file:
            file.write(settings + "ALLOWED_HOSTS.append('127.0.0.1')\n")
        with free_port() as one, free_port() as two:
            pass
        text = HAPROXY.replace("10.0.0.11:8000", f"127.0.0.1:{one}").replace("10.0.0.12:8000", f"127.0.0.1:{two}")

        def serve(port: int) -> Server:
            return stack.enter_context(machine.serve([*COMMAND, f"127.0.0.1:{port}"])).ready()

        with contextlib.ExitStack() as stack:
            first, second = serve(one), serve(two)
            haproxy = stack.enter_context(PageHaproxy(text))
            status, said = ask(haproxy.port, **LIES)
            assert status == 200
            assert (said["address"], said["scheme"], said["host"]) == ("127.0.0.1", "http", "example.com")
            with Clients(haproxy, 2) as fresh, Clients(haproxy, 2, keep_alive=True) as kept:  # type: ignore[arg-type]
                stop(first, lambda: "Server mysite/one is DOWN" in (haproxy.path / "output").read_text())
                fresh.some_more()
                kept.some_more()
                third = serve(one)
                eventually(lambda: ask(haproxy.port)[1]["arbiter"] == third.arbiter(), "what came back is asked")
            assert fresh.failures == [] and kept.failures == []
            assert {status for status, _ in fresh.answers + kept.answers} == {200}
            said_by_haproxy = (haproxy.path / "output").read_text()
            assert "ALERT" not in said_by_haproxy, said_by_haproxy
            # But for those that say that a server is down.
            assert not re.search(r"\[WARNING\].*(?:config|missing|deprecated)", said_by_haproxy), said_by_haproxy
            for server in (second, third):
                stop(server, lambda: True)


def stop(server: Server, noticed: Callable[[], bool]) -> None:
    server.kill(signal.SIGTERM)
    server.wait_for("draining")
    eventually(noticed, "the proxy knows")
    server.insist()  # ends the delay
    assert server.wait() == 0
