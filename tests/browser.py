"""The demo project's browser tests, again and again: `python -m tests.browser --times 20`.

Each run is a test run of its own, half of them by pytest and half by Django's runner. It counts runs that failed and
processes that were left of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.harness import ROOT
from tests.live.test_runs import Run

RUNNERS = {
    "pytest": [
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-n0",
        "-p",
        "no:cacheprovider",
        "demo_project/board/tests/test_browser.py",
    ],
    "django": ["manage.py", "test", "demo_project.board.tests.test_browser"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    failed = left = 0
    began = time.monotonic()
    for number in range(1, times + 1):
        name = list(RUNNERS)[number % len(RUNNERS)]
        run = Run(ROOT, RUNNERS[name], database=None, settings="demo_project.settings")
        try:
            output, _ = run.process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            output = "it did not end within 300 s"
        remains = run.left()
        run.kill()
        sound = run.process.returncode == 0 and "skipped" not in output
        print(f"{number:3} {name}: {'ok' if sound else 'FAILED'}, {len(remains)} processes left", flush=True)
        if not sound:
            print(output)
        failed += not sound
        left += len(remains)
    print(f"{times} runs in {time.monotonic() - began:.0f} s: {failed} failed, {left} processes left")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
