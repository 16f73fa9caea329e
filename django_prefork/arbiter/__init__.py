"""The master: runs in an Arbiter's process only."""

from __future__ import annotations
