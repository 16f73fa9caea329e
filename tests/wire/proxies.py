"""nginx and HAProxy in front of a server, each with connections that it keeps, on a port of the kernel's choice.

Both give every request that they forward a number of their own, in the place of any that the client has sent: so it can
be told whether what the application served is what the proxy forwarded.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import PATIENCE
from tests.wire.tools import tool

#: What the server has to log, so that the numbers can be compared: --access-log-format.
NUMBERED = "access {request_id} {status} {method} {target}"

NGINX = """
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 2048; }}
http {{
    log_format told escape=json '{{"id":"$request_id","status":"$status",'
        '"upstream":"$upstream_addr","request":"$request"}}';
    access_log {folder}/access.log told;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    client_header_timeout {patience};
    client_body_timeout {patience};
    lingering_timeout {patience};
    keepalive_timeout {patience};
    keepalive_requests 1000000;
    merge_slashes off;
    upstream server_ {{
        server {upstream};
        keepalive 32;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://server_;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_next_upstream off;
            {options}
        }}
    }}
}}
"""

HAPROXY = """
global
    log stdout format raw local0
    # Of several threads that want to write to it at the same moment, all but one drop their lines.
    nbthread 1
    maxconn 2048
defaults
    mode http
    log global
    timeout connect 5s
    timeout client {patience}
    timeout server 30s
    timeout http-request {patience}
    timeout http-keep-alive {patience}
    http-reuse always
    retries 0
frontend clients
    bind fd@{descriptor}
    unique-id-format %[uuid()]
    http-request set-header X-Request-Id %[unique-id]
    http-request set-header X-Forwarded-For %[src]
    {options}
    log-format '%ID %ST %s %{{+Q}}r'
    default_backend servers
backend servers
    server one {upstream}
"""


class Proxy(ABC):
    """A running proxy. `upstream`: HOST:PORT, or unix:/path; `patience`: seconds that it has with clients."""

    def __init__(self, upstream: str, options: str = "", patience: str = "60s") -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="proxy-")
        self.path = Path(self.folder.name)
        configuration = self.path / "configuration"
        with (
            socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
            open(self.path / "output", "wb") as output,
        ):
            self.port: int = listener.getsockname()[1]
            number = listener.fileno()
            configuration.write_text(self._configuration(number, upstream, options, patience))
            self.process = subprocess.Popen(
                self._command(configuration),
                # As a new nginx inherits them from the one that it replaces; HAProxy's configuration names it.
                env={**os.environ, "NGINX": f"{number};"},
                pass_fds=(number,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._until_it_listens()

    @abstractmethod
    def _configuration(self, listener: int, upstream: str, options: str, patience: str) -> str:
        """`listener`: the descriptor of the socket that it inherits."""

    @abstractmethod
    def _command(self, configuration: Path) -> list[str]:
        """How it is started."""

    def _until_it_listens(self) -> None:
        # It inherits a socket that listens: a connection waits in it until the proxy takes it.
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            try:
                answer = sock.recv(1000)
            except ConnectionResetError:
                answer = b""
            assert b" 400 " in answer, (answer, (self.path / "output").read_text())

    @abstractmethod
    def forwarded(self) -> dict[str, str]:
        """What was sent on to the server: number -> request line. To be asked when the proxy has ended."""

    @abstractmethod
    def statuses(self) -> list[int]:
        """Of all answers."""

    @abstractmethod
    def log(self) -> str:
        """All that it has said of requests."""

    def stop(self) -> None:
        """Let it end what it has, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(self._GRACEFULLY)
            try:
                self.process.wait(PATIENCE)
            finally:
                if self.process.poll() is None:
                    self.process.kill()
                    self.process.wait()

    _GRACEFULLY = signal.SIGTERM

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self.folder.cleanup()


class Nginx(Proxy):
    _GRACEFULLY = signal.SIGQUIT

    def _configuration(self, listener: int, upstream: str, options: str, patience: str) -> str:
        user = "user root;" if os.geteuid() == 0 else ""
        return NGINX.format(
            folder=self.path, user=user, patience=patience, upstream=upstream, port=self.port, options=options
        )

    def _command(self, configuration: Path) -> list[str]:
        return [tool("nginx"), "-p", str(self.path), "-c", str(configuration), "-e", "stderr"]

    def log(self) -> str:
        return (self.path / "access.log").read_text("utf-8", "replace")

    def _entries(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log().splitlines()]

    def forwarded(self) -> dict[str, str]:
        return {entry["id"]: entry["request"] for entry in self._entries() if entry["upstream"]}

    def statuses(self) -> list[int]:
        return [int(entry["status"]) for entry in self._entries()]


class Haproxy(Proxy):
    _GRACEFULLY = signal.SIGUSR1

    def _configuration(self, listener: int, upstream: str, options: str, patience: str) -> str:
        server = upstream.replace("unix:", "unix@")
        return HAPROXY.format(patience=patience, upstream=server, descriptor=listener, options=options)

    def _command(self, configuration: Path) -> list[str]:
        return [tool("haproxy"), "-db", "-f", str(configuration)]

    def log(self) -> str:
        return (self.path / "output").read_text("utf-8", "replace")

    def _entries(self) -> list[list[str]]:
        entries = [line.split(" ", 3) for line in self.log().splitlines()]
        return [entry for entry in entries if len(entry) == 4 and entry[1].lstrip("-").isdigit()]

    def forwarded(self) -> dict[str, str]:
        return {entry[0]: entry[3] for entry in self._entries() if entry[2] == "one"}

    def statuses(self) -> list[int]:
        return [int(entry[1]) for entry in self._entries()]
