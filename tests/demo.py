"""The demo project with its data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.harness import ROOT


def with_data(data: Path, folder: Path = ROOT) -> dict[str, str]:
    """The environment of the demo project in `folder`, whose data is made now, in `data`."""
    environment = {"DJANGO_SETTINGS_MODULE": "demo_project.settings", "DEMO_DATA_DIR": str(data)}
    for command in (["migrate", "--verbosity", "0"], ["demo_data"]):
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            check=True,
            capture_output=True,
        )
    return environment
