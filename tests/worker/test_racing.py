"""A signal that says a request is late may come at any bytecode."""

from __future__ import annotations

import re
import subprocess
import sys


def test_of_100_000_signals_none_loses_an_answer_or_leaves_a_response_open() -> None:
    command = [sys.executable, "-m", "tests.worker.racing", "100000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    said = re.match(r"100000 signals, (\d+) of (\d+) requests were told", done.stdout)
    assert said and int(said[1]) > 500 and int(said[2]) > 1000, done.stdout
