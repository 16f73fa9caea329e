"""What the server costs, beside others: see benchmarks/README.md."""

from __future__ import annotations
