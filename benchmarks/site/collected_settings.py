"""The demo's, with an application that watches the garbage collector."""

from __future__ import annotations

from demo_project.settings import *  # noqa: F403

WSGI_APPLICATION = "benchmarks.site.collected.application"
