"""python -m benchmarks.parse: a browser's request with 12 header fields, from its bytes to its WSGI environ.

Three kinds of requests: the same bytes again and again; with new ids in each (wrk/varying.txt), as a site sees them;
and with every line new, so that a cache of lines only costs.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from benchmarks import browser
from benchmarks.environment import continue_inside

Parse = Callable[[bytes], dict[str, Any]]

_ROUNDS = 7
_REQUESTS = 4000
_PEER = ("127.0.0.1", "50000")
_TEMPLATE: dict[str, Any] = {
    "SCRIPT_NAME": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "REMOTE_ADDR": _PEER[0],
    "REMOTE_PORT": _PEER[1],
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def main() -> None:
    continue_inside("benchmarks.parse", "h11", "waitress", "httptools")
    text = browser.head("varying")
    same = browser.fresh(text)
    kinds: dict[str, Callable[[], list[bytes]]] = {
        "seen before": lambda: [same] * _REQUESTS,
        "new ids": lambda: [browser.fresh(text) for _ in range(_REQUESTS)],
        "all lines new": lambda: [_all_new(text) for _ in range(_REQUESTS)],
    }
    parsers: dict[str, Callable[[], Parse]] = {
        "django-prefork": ours,
        "httptools": with_httptools,
        "waitress": with_waitress,
        "h11": with_h11,
    }
    fields = len(same.splitlines()) - 2
    print(f"{len(same)} bytes, {fields} fields; us a request, median of {_ROUNDS} (fastest)\n")
    print("".ljust(16), *(kind.rjust(16) for kind in kinds))
    # In turns, each round with requests of its own: what one round has brought into a cache is of no use to the next.
    costs: dict[tuple[str, str], list[float]] = {}
    ready = {name: make() for name, make in parsers.items()}
    for _ in range(_ROUNDS):
        for kind, make_requests in kinds.items():
            requests = make_requests()
            for name, parse in ready.items():
                _agree(name, parse(requests[0]), requests[0])
                costs.setdefault((name, kind), []).append(_cost(parse, requests))
    for name in parsers:
        cells = (costs[name, kind] for kind in kinds)
        print(name.ljust(16), *(f"{statistics.median(cell):.1f} ({min(cell):.1f})".rjust(16) for cell in cells))


def ours() -> Parse:
    from django_prefork.http.environ import complete, template
    from django_prefork.http.parser import Limits, RequestParser, lines_of

    parser = RequestParser(Limits())
    common = template(server_name="127.0.0.1", server_port="8000", errors=sys.stderr)

    def parse(data: bytes) -> dict[str, Any]:
        lines = lines_of(data)
        assert lines is not None
        return complete(parser.judge(lines, common.copy()), _PEER, None)

    return parse


def with_httptools() -> Parse:
    """C, with its callbacks in Python; judges less than the others (a method in lower case, two Hosts)."""
    import httptools

    class Collector:
        def __init__(self) -> None:
            self.environ: dict[str, Any] = {}

        def on_url(self, url: bytes) -> None:
            self.url = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.environ[_key(name.decode("latin-1"))] = value.decode("latin-1")

    collector = Collector()
    parser = httptools.HttpRequestParser(collector)

    def parse(data: bytes) -> dict[str, Any]:
        environ = collector.environ = _TEMPLATE.copy()
        parser.feed_data(data)
        path, _, query = collector.url.decode("latin-1").partition("?")
        return _complete(environ, parser.get_method().decode("latin-1"), path, query)

    return parse


def with_waitress() -> Parse:
    """Its own task makes the environ."""
    from types import SimpleNamespace

    from waitress.adjustments import Adjustments
    from waitress.parser import HTTPRequestParser
    from waitress.task import WSGITask

    adjustments = Adjustments(ident="waitress", host="127.0.0.1", port=8000)
    server = SimpleNamespace(adj=adjustments, effective_port=8000, effective_host="127.0.0.1", server_name="127.0.0.1")
    channel = SimpleNamespace(server=server, addr=("127.0.0.1", 50000), check_client_disconnected=None)

    def parse(data: bytes) -> dict[str, Any]:
        parser = HTTPRequestParser(adjustments)
        parser.received(data)
        environ: dict[str, Any] = WSGITask(channel, parser).get_environment()
        return environ

    return parse


def with_h11() -> Parse:
    """A new connection for each request, since a second one needs an answer to the first."""
    import h11

    def parse(data: bytes) -> dict[str, Any]:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        event = connection.next_event()
        assert isinstance(event, h11.Request)
        environ = _TEMPLATE.copy()
        for name, value in event.headers:
            environ[_key(name.decode("latin-1"))] = value.decode("latin-1")
        path, _, query = event.target.decode("latin-1").partition("?")
        return _complete(environ, event.method.decode("latin-1"), path, query)

    return parse


def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def _complete(environ: dict[str, Any], method: str, path: str, query: str) -> dict[str, Any]:
    """What the libraries leave to the server; none of the requests here has a body or an escape in its path."""
    environ["REQUEST_METHOD"] = method
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = "HTTP/1.1"
    environ["wsgi.input"] = BytesIO()
    return environ


def _all_new(text: str) -> bytes:
    """Every line with an id of its own, where its grammar lets one stand."""
    first, *lines = text.rstrip("\r\n").split("\r\n")
    for number, line in enumerate(lines):
        name, _, value = line.partition(": ")
        if name == "Host":
            lines[number] = f"Host: <id>.{value}"
        elif "<id>" not in line and name != "Connection":
            lines[number] = f"{line};q=0.{random.getrandbits(32)}"
    return browser.fresh("\r\n".join([first, *lines]) + "\r\n\r\n")


def _agree(name: str, environ: dict[str, Any], head: bytes) -> None:
    """A parser that loses a field is no comparison."""
    for key, value in browser.environ(head).items():
        if environ.get(key) != value:
            sys.exit(f"{name} has {environ.get(key)!r} for {key}, which is {value!r}")


def _cost(parse: Parse, requests: Sequence[bytes]) -> float:
    """Microseconds of CPU for one request."""
    for request in requests[:200]:
        parse(request)
    gc.collect()
    began = time.process_time_ns()
    for request in requests[200:]:
        parse(request)
    return (time.process_time_ns() - began) / 1000 / (len(requests) - 200)


if __name__ == "__main__":
    main()
