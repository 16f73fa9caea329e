"""A fuzzer for the HTTP parser: `python -m tests.fuzz --seconds 60`. Not collected by pytest."""

from __future__ import annotations
