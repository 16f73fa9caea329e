"""The workers: runs after the fork only."""

from __future__ import annotations
