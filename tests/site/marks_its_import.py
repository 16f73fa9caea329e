"""Says by a file who it was when it was imported."""

from __future__ import annotations

import os
from pathlib import Path

from tests.site.applications import hello as application

Path(os.environ["TEST_MARKER"]).touch()

__all__ = ["application"]
