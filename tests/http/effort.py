"""How hard the property tests try: `make fuzz` has them try ten times as often, and other examples each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))


def tries(examples: int, *suppressed: HealthCheck) -> settings:
    """A decorator for tests with `given`; an example may take its time."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, *suppressed],
    )
