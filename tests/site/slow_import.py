"""An application that takes its time to import."""

from __future__ import annotations

import sys
import time

print("importing slowly", file=sys.stderr, flush=True)
time.sleep(30)  # prefork: ok

from tests.site.applications import hello as application  # noqa: E402

__all__ = ["application"]
