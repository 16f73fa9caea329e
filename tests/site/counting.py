"""Metrics of a project's own: an app that makes them when Django is set up."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SEEN = Counter("seen", "Requests for a view.")
ALIVE = Gauge("alive", "Something of a living process.", multiprocess_mode="livesum")
