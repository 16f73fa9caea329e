"""Log-linear histograms: where their buckets end, and what can be read off them.

Each decade (each octave, for sizes) has the same few steps, so that a figure read off is never wrong by more than a
third, whether it is about microseconds or minutes. As all histograms have the same buckets, those of several workers,
and of several hours, are added and subtracted bucket by bucket. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_STEPS = ("1", "1.25", "1.5", "2", "2.5", "3", "4", "5", "6", "8")

#: Upper ends, inclusive, of the buckets of durations (seconds): 10 us to 100 s. One more bucket is beyond the last.
TIMES = (*(float(f"{step}e{decade}") for decade in range(-5, 2) for step in _STEPS), 100.0)
#: Those of sizes (bytes): nothing at all, then 64 bytes to 1 GiB, two to an octave.
SIZES = (0, *(step << octave for octave in range(24) for step in (64, 96)), 1 << 30)

#: A fewer of them, for who keeps each as a series of its own (Prometheus).
COARSE_TIMES = tuple(float(f"{step}e{decade}") for decade in range(-4, 2) for step in ("1", "2.5", "5"))
COARSE_SIZES = tuple(1 << octave for octave in range(8, 31, 2))


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """What `share` (0 to 1) of the values is at most; None where there are none.

    Within a bucket values are taken to lie evenly. What is beyond the last bound counts as that.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    seen = 0
    low = 0.0
    for count, high in zip(counts, bounds, strict=False):
        if count and seen + count >= wanted:
            return low + (high - low) * max(0.0, wanted - seen) / count
        seen += count
        low = high
    return float(bounds[-1])


def cumulated(counts: Sequence[int], bounds: Sequence[float], ends: Sequence[float]) -> list[int]:
    """How many values are at most each of `ends`, which must be some of `bounds`."""
    sums = dict(zip(bounds, _running(counts), strict=False))
    return [sums[end] for end in ends]


def _running(counts: Sequence[int]) -> list[int]:
    total, found = 0, []
    for count in counts:
        total += count
        found.append(total)
    return found


assert all(low < high for bounds in (TIMES, SIZES) for low, high in pairwise(bounds))
assert set(COARSE_TIMES) <= set(TIMES) and set(COARSE_SIZES) <= set(SIZES)
