"""Clients as they are used: curl, requests, ab, wrk, and a browser."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.harness import Server
from tests.wire.applications import LARGE
from tests.wire.tools import needs_tool, serve, tool


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--access-log", "-", workers=2) as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def run(*command: str, given: bytes = b"") -> str:
    done = subprocess.run([tool(command[0]), *command[1:]], input=given, capture_output=True, timeout=100)
    assert done.returncode == 0, (done.returncode, done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace")


# -- curl --------------------------------------------------------------------------------------------------------------

STATS = "\n%{http_code} %{http_version} %{num_connects}\n"


def curl(*arguments: str, given: bytes = b"") -> str:
    return run("curl", "-sS", "--max-time", "60", "-w", STATS, *arguments, given=given)


@needs_tool("curl")
def test_curl_keeps_its_connection(url: str) -> None:
    said = curl("--http1.1", f"{url}/hello", f"{url}/hello", f"{url}/stream?10", f"{url}/hello")
    assert re.findall(r"^(\d+) (\S+) (\d)$", said, re.MULTILINE) == [("200", "1.1", "1")] + [("200", "1.1", "0")] * 3


@needs_tool("curl")
def test_curl_with_http_1_0(url: str) -> None:
    said = curl("--http1.0", f"{url}/stream?100")
    assert said.startswith("y" * 100 + "\n200 ")


@needs_tool("curl")
@pytest.mark.parametrize("size", [10, 200_000, 3_000_000])
def test_curl_offers_http_2_with_a_body_and_is_served_http_1(url: str, size: int) -> None:
    """With `Upgrade: h2c`: the body must not be lost over it."""
    said = curl("--http2", "--data-binary", "@-", f"{url}/count", f"{url}/hello", given=b"x" * size)
    assert said.startswith(f"{size}\n200 1.1 1\n")
    assert "\n200 1.1 0\n" in said


@needs_tool("curl")
def test_curl_uploads_what_it_does_not_know_the_length_of(url: str) -> None:
    body = os.urandom(2_000_000)
    said = curl("-T", "-", f"{url}/sha256", given=body)
    assert json.loads(said.splitlines()[0])["sha256"] == hashlib.sha256(body).hexdigest()
    assert " 1.1 1" in said


@needs_tool("curl")
def test_curl_expects_to_be_told_to_go_on(url: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"x" * 3_000_000)
    arguments = ("-H", "Expect: 100-continue", "--expect100-timeout", "50", "-T", str(tmp_path / "body"))
    # It would wait 50 seconds otherwise, and be given up.
    said = run("curl", "-sS", "-v", "--stderr", "-", "--max-time", "30", *arguments, f"{url}/count")
    assert "< HTTP/1.1 100 Continue" in said and "< HTTP/1.1 200 OK" in said and "3000000" in said


@needs_tool("curl")
def test_curl_is_refused_before_it_sends_a_body_that_is_too_large() -> None:
    with serve("--limit-request-body", "1m") as server:
        url = f"http://127.0.0.1:{server.port}/count"
        body = b"x" * 3_000_000
        arguments = ("-H", "Expect: 100-continue", "--expect100-timeout", "50", "--data-binary", "@-")
        said = run("curl", "-sS", "-v", "--stderr", "-", "--max-time", "30", *arguments, url, given=body)
        assert "< HTTP/1.1 413 " in said and "100 Continue" not in said
        # And without asking, as a browser does: the answer arrives nonetheless.
        said = curl("-H", "Expect:", "-T", "-", url, given=b"x" * 1_100_000)
        assert "\n413 1.1" in said


@needs_tool("curl")
def test_curl_asks_for_the_head_of_what_is_large(url: str) -> None:
    said = curl("-I", f"{url}/large", f"{url}/hello")
    assert f"Content-Length: {LARGE}\r" in said and "\n200 1.1 0\n" in said


@needs_tool("curl")
def test_curl_reads_slowly(url: str) -> None:
    said = curl("--limit-rate", "2M", "-o", "/dev/null", f"{url}/large?4000000")
    assert "200 1.1 1" in said


# -- requests, ab, wrk -------------------------------------------------------------------------------------------------


def test_requests_keeps_its_connection(url: str) -> None:
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(f"{url}/hello", timeout=30).text == "hello\n"
            assert session.post(f"{url}/count", data=b"x" * 1_000_000, timeout=30).text == "1000000"
            assert session.post(f"{url}/count", data=iter([b"a" * 10, b"b" * 600_000]), timeout=30).text == "600010"
            assert len(session.get(f"{url}/stream?54321", timeout=30).content) == 54321
            assert int(session.post(f"{url}/count", files={"f": b"x" * 5000}, timeout=30).text) > 5000
            assert session.head(f"{url}/large", timeout=30).headers["Content-Length"] == str(LARGE)
        pools = session.get_adapter(url).poolmanager.pools  # type: ignore[attr-defined]
        assert [pools.get(key).num_connections for key in pools.keys()] == [1]  # noqa: SIM118 - it has no iterator


@needs_tool("ab")
@pytest.mark.parametrize("arguments", [(), ("-k",), ("-k", "-p", "BODY"), ("-i", "-k")], ids=" ".join)
def test_ab_counts_no_failure(url: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"x" * 10_000)
    words = [str(tmp_path / "body") if word == "BODY" else word for word in arguments]
    said = run("ab", "-n", "2000", "-c", "20", "-q", *words, f"{url}/{'count' if 'BODY' in arguments else 'hello'}")
    assert re.search(r"Complete requests: +2000\n", said), said
    assert re.search(r"Failed requests: +0\n", said), said
    assert "Non-2xx" not in said
    if "-k" in arguments:
        assert re.search(r"Keep-Alive requests: +2000\n", said), said


@needs_tool("wrk")
def test_wrk_counts_no_failure(url: str) -> None:
    said = run("wrk", "-t", "1", "-c", "50", "-d", "1s", f"{url}/hello")
    assert re.search(r"[1-9]\d+ requests in ", said), said
    assert "Socket errors" not in said and "Non-2xx" not in said, said


# -- a browser ---------------------------------------------------------------------------------------------------------


@needs_tool("chromium")
def test_a_browser_loads_a_page_fetches_and_uploads(url: str) -> None:
    with tempfile.TemporaryDirectory() as profile:
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
        said = run(
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}"),
            *("--virtual-time-budget=20000", "--dump-dom", f"{url}/page"),
        )
    assert "said: 20 true 500000" in said, said[-1000:]
