"""How hard the property tests try: `make fuzz` has them try ten times as often, and other examples each time."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
