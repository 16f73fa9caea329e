"""The floor: the application called in a loop, without a server. No server can cost less than that.

python -m benchmarks.floor MODULE:CALLABLE HEADERS TARGET SECONDS, inside the environment; prints nanoseconds a request.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import browser
from benchmarks.applications import Application
from benchmarks.cores import cores
from benchmarks.environment import PYTHON, ROOT

# Where headers vary, that many requests differ before the first comes again.
_VARIETY = 10_000
_WARM_UP = 500


def measure(application: Application, headers: str, seconds: int, folder: Path) -> float:
    """CPU seconds for one request to `application`, in a process of its own, on the server's core."""
    words = (application.import_string, headers, application.target, str(seconds))
    done = subprocess.run(
        [*cores().server, PYTHON, "-m", "benchmarks.floor", *words],
        cwd=ROOT,
        env=application.variables(folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=20 * seconds + 60,  # seconds of CPU: on a busy machine they take longer
    )
    nanoseconds: float = json.loads(done.stdout)
    return nanoseconds / 1e9


def main() -> None:
    spec, headers, target, seconds = sys.argv[1:]
    module, _, name = spec.partition(":")
    application = getattr(importlib.import_module(module), name)
    text = browser.head(headers, target)
    requests = [browser.environ(browser.fresh(text)) for _ in range(_VARIETY if "<id>" in text else 1)]
    print(json.dumps(_loop(application, requests, float(seconds))))


def _loop(application: Any, requests: list[dict[str, str]], seconds: float) -> float:
    template = {
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    templates = [{**template, **request} for request in requests]

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> None:
        pass

    def serve(template: dict[str, Any]) -> None:
        result = application(template.copy(), start_response)
        try:
            for _ in result:
                pass
        finally:
            if hasattr(result, "close"):
                result.close()

    endless = cycle(templates)
    for template in islice(endless, _WARM_UP):
        serve(template)
    served = 0
    began = time.process_time_ns()
    while (spent := time.process_time_ns() - began) < seconds * 1e9:
        for template in islice(endless, 100):
            serve(template)
        served += 100
    return spent / served


if __name__ == "__main__":
    main()
