"""What the tests of this folder have in common."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.harness import PATIENCE, Server, eventually

Metrics = dict[str, dict[tuple[tuple[str, str], ...], float]]


def django(*arguments: str, **more: Any) -> Server:
    """Django's own application of the tests' site."""
    return Server("--graceful-timeout", "0.5", *arguments, application="", environment={"TEST_APPLICATION": ""}, **more)


def watched(*arguments: str, **more: Any) -> Server:
    """With a status listener on a port of the kernel's choice."""
    return django("--status-bind", "127.0.0.1:0", *arguments, **more)


def status_port(server: Server) -> int:
    return int(server.wait_for(r"Status at http://.*:(\d+)/")[1])


def tell(server: Server, path: str, method: str = "GET") -> tuple[int, str]:
    """What the status listener answers."""
    connection = http.client.HTTPConnection("127.0.0.1", status_port(server), timeout=PATIENCE)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def told(server: Server) -> Any:
    return json.loads(tell(server, "/status.json")[1])


def metrics(server: Server) -> Metrics:
    """By the name of the sample, and its labels."""
    return parsed(tell(server, "/metrics")[1])


def parsed(text: str) -> Metrics:
    found: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def stuck(server: Server, count: int, path: str = "/sleep/20/") -> list[socket.socket]:
    """So many requests that run, as their views have said."""
    socks = [server.ask(f"{path}?id={number}") for number in range(count)]
    server.wait_for("sleeping", times=count)
    return socks


def end(server: Server) -> None:
    """Without waiting for those who are stuck."""
    server.errors = "killed|SIGKILL"
    server.kill()
    server.insist()
    eventually(lambda: server.process.poll() is not None, "the server ends")
