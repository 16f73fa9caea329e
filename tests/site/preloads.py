"""An application that does on import what preloading breaks, and says what became of it."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django_prefork import signals


def export_for_ever() -> None:
    threading.Event().wait()


threading.Thread(target=export_for_ever, name="exporter", daemon=True).start()
threading.Timer(3600, export_for_ever).start()
executor = ThreadPoolExecutor(1, "pool")
executor.submit(export_for_ever)

forks: list[int] = []
os.register_at_fork(after_in_child=lambda: forks.append(os.getpid()))
random.seed(1)
peer = socket.create_connection(("127.0.0.1", int(os.environ["TEST_PEER"])))
pair = socket.socketpair()


def said(**arguments: Any) -> None:
    os.write(2, f"pre_fork in {os.getpid()} slot={arguments['slot']} generation={arguments['generation']}\n".encode())


signals.pre_fork.connect(said)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    answer = {"pid": os.getpid(), "drawn": random.random(), "forks": forks, "threads": threading.active_count()}
    return [json.dumps(answer).encode()]
