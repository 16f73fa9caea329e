"""What a project gets: stable files for its own metrics, and Server-Timing."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from tests.harness import Server, read_answer
from tests.observing.tools import django, parsed


def test_metrics_of_a_project_have_a_slots_files_and_none_of_the_dead(tmp_path: Path) -> None:
    server = Server(
        *("--workers", "1"),
        application="",
        environment={
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
            "TEST_APP": "tests.site.counting",
            "TEST_APPLICATION": "",
        },
        errors="SIGKILL",
    )
    with server.ready():
        server.get("/counted/")
        server.kill(signal.SIGKILL, server.workers()[0])
        server.wait_for("was ended by SIGKILL")
        server.full_strength(1)
        server.get("/counted/")
        server.kill(signal.SIGHUP)
        server.ready(2)
        server.wait_for("arbiter gen=1 leaves")
        server.kill(signal.SIGKILL, server.arbiter(2))
        server.ready(3)
        server.wait_for("worker=.* gen=2 .* gone")
        server.get("/counted/")
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(tmp_path))
        counted = parsed(generate_latest(registry).decode())
        assert counted["seen_total"][()] == 3 and counted["alive"][()] == 1
        names = sorted(os.listdir(tmp_path))
        # Two slots took turns; two of the Arbiters' may be there.
        assert all(re.fullmatch(r"(counter|gauge_livesum)_(slot[0-2]|arbiter[23])\.db", name) for name in names), names


def test_a_browser_is_told_how_long_it_took_if_that_is_wanted() -> None:
    with django("--workers", "1", "--server-timing", "on").ready() as server:
        status, fields, _ = read_answer(server.ask("/slow/?s=0.05"))
        match = re.fullmatch(r"queue;dur=([0-9.]+), app;dur=([0-9.]+)", fields["server-timing"])
        assert status == 200 and match and float(match[2]) >= 50
        assert "server-timing" in read_answer(server.ask("/stream/?s=0&last=0"))[1]
    with django("--workers", "1").ready() as server:
        assert "server-timing" not in read_answer(server.ask("/"))[1]
