"""The backend for django-prodserver: `manage.py server web` becomes this server."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.harness import ROOT, Server

pytest.importorskip("django_prodserver")


def serve(name: str, errors: str = "") -> Server:
    command = [sys.executable, "-X", "dev", str(ROOT / "manage.py"), "server", name]
    return Server(command=command, bind=None, settings="tests.site.prodserver", errors=errors)


def test_the_server_command_serves_and_reloads() -> None:
    with serve("web") as server:
        server.ready()
        assert server.get()[0] == 200
        assert len(server.workers()) == 2
        server.kill(signal.SIGHUP)
        server.ready(2)
        assert server.get()[0] == 200
        assert server.stop() == 0


def test_a_wrong_option_is_one_sentence() -> None:
    with serve("wrong") as server:
        assert server.wait() == 1
        assert "workers takes" in server.log
        assert "Traceback" not in server.log
