"""What the tests of this folder have served; the path says which answer."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import IO, Any

LARGE = 10 * 1024 * 1024

#: A page that a browser has to work with: it fetches, posts a form, and says in its own text what came of it.
PAGE = b"""<!DOCTYPE html>
<html><head><title>wire</title><link rel="icon" href="/icon"></head><body><p id="said">nothing yet</p>
<script>
  const size = 3000000, answers = [];
  const get = Array.from({length: 20}, (_, number) => fetch("/hello?" + number).then(answer => answer.text()));
  const form = new FormData();
  form.append("file", new Blob([new Uint8Array(size)]), "file");
  const post = fetch("/count", {method: "POST", body: form}).then(answer => answer.text());
  const streamed = fetch("/stream?500000").then(answer => answer.arrayBuffer());
  Promise.all([Promise.all(get), post, streamed]).then(([gets, posted, stream]) => {
    const text = gets.filter(text => text == "hello\\n").length + " " + (posted > size) + " " + stream.byteLength;
    document.getElementById("said").textContent = "said: " + text;
  });
</script></body></html>
"""


def wire(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """The path says what: `/large?N` (10 MiB) at once, `/stream?N` in pieces, `/file?N`; or of a body its `/count`."""
    path = environ["PATH_INFO"]
    if path == "/sha256":
        return _sha256(environ, start_response)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return _pieces(int(environ["QUERY_STRING"]))
    if path == "/file":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](open(os.dup(_file(int(environ["QUERY_STRING"])).fileno()), "rb"))
    kind = "text/html" if path == "/page" else "text/plain"
    if path == "/large":
        body = b"x" * int(environ["QUERY_STRING"] or LARGE)
    elif path == "/count":
        body = str(sum(map(len, iter(lambda: environ["wsgi.input"].read(65536), b"")))).encode()
    else:
        body = PAGE if path == "/page" else b"hello\n"
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


@cache
def _file(size: int) -> IO[bytes]:
    """A file of that many zeros, which nobody reads but by its offset."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process lives
    file.truncate(size)
    return file


def _pieces(size: int) -> Iterator[bytes]:
    """Small ones, as the rows of a table are."""
    for start in range(0, size, 50):
        yield b"y" * min(50, size - start)


def _sha256(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """When the application was called, by the clock that all processes share, and what it read."""
    called = time.monotonic()
    digest = hashlib.sha256()
    size = 0
    while piece := environ["wsgi.input"].read(1 << 20):
        digest.update(piece)
        size += len(piece)
    answer = json.dumps({"called": called, "size": size, "sha256": digest.hexdigest()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
