"""What may go wrong, and what then has to happen: `docs/faults.md` says which test shows which fault."""

from __future__ import annotations
