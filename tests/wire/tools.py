"""What all tests of this folder need: a server for them, a client with a socket, and tools that may be missing."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import struct
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_prefork.memory import private_bytes
from tests.harness import PATIENCE, Server

HELLO = b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"


class NotHere(Exception):
    """Something that a command needs is not on this machine; the text says what."""


def serve(*arguments: str, application: str = "wire", workers: int = 1, **options: Any) -> Server:
    """One worker, if not said otherwise, that serves the application of this folder."""
    name = f"tests.wire.applications.{application}" if "." not in application else application
    environment = {"TEST_APPLICATION": name, **options.pop("environment", {})}
    return Server("--workers", str(workers), *arguments, environment=environment, **options).ready()


def worker_of(server: Server) -> psutil.Process:
    (pid,) = server.workers()
    return psutil.Process(pid)


def connect(server: Server, data: bytes = b"", receive_buffer: int = 0) -> socket.socket:
    """A connection that has sent `data`; whoever asks for it closes it."""
    sock = socket.socket()
    try:
        sock.settimeout(PATIENCE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", server.port))
        if data:
            sock.sendall(data)
    except OSError:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Close it with a reset instead of an orderly end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def take(sock: socket.socket, count: int) -> None:
    """Receive exactly `count` bytes."""
    while count:
        data = sock.recv(min(count, 1 << 18))
        assert data, f"closed {count} bytes too early"
        count -= len(data)


def to_the_end(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(1 << 18):
            data += more
    return bytes(data)


def ask(server: Server, request: bytes = HELLO, ending: bytes = b"hello\n") -> float:
    """A new client's request; how long it took, in seconds."""
    began = time.monotonic()
    with connect(server, request) as sock:
        data = b""
        while not data.endswith(ending):
            more = sock.recv(65536)
            assert more, f"closed after {data!r}"
            data += more
    assert data.startswith(b"HTTP/1.1 200 "), data
    return time.monotonic() - began


def descriptors(count: int) -> None:
    """Let this process have `count` descriptors and a few. Raises NotHere."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        raise NotHere(f"{count} connections take a descriptor limit of {count + 200}, and the hard one is {hard}")
    if soft < count + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 200, hard))


def tool(name: str) -> str:
    """The path of a program. Raises NotHere."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise NotHere(f"there is no {name} on this machine")
    return path


def needs_tool(*names: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing, and say which."""
    missing = [name for name in names if not (shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin"))]
    return pytest.mark.skipif(bool(missing), reason=f"there is no {' and no '.join(missing)} on this machine")


def private(process: psutil.Process) -> int:
    """Bytes of memory of its own."""
    size = private_bytes(process.pid)
    assert size is not None, "this system does not tell"
    return size


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has used of the CPUs, to the nanosecond."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
