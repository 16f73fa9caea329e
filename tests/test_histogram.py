from __future__ import annotations

import random
from bisect import bisect_left

import pytest

from django_prefork.histogram import COARSE_TIMES, SIZES, TIMES, cumulated, quantile


def counted(values: list[float], bounds: tuple[float, ...]) -> list[int]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return counts


@pytest.mark.parametrize("bounds", [TIMES, SIZES])
def test_a_figure_read_off_is_never_far_from_the_truth(bounds: tuple[float, ...]) -> None:
    random.seed(8)
    values = sorted(random.lognormvariate(0, 2) * bounds[len(bounds) // 2] for _ in range(5000))
    inside = [value for value in values if bounds[1] < value < bounds[-1]]
    counts = counted(inside, bounds)
    for share in (0.05, 0.5, 0.95, 0.99):
        truth = inside[int(share * len(inside))]
        found = quantile(counts, bounds, share)
        assert found is not None and 0.66 < found / truth < 1.5


def test_the_quantiles_of_nothing_and_of_the_extremes() -> None:
    assert quantile([0] * 72, TIMES, 0.5) is None
    assert quantile(counted([1000.0], TIMES), TIMES, 0.99) == 100.0
    assert 0 < (quantile(counted([0.0], TIMES), TIMES, 0.99) or 0) <= 1e-05


def test_fewer_buckets_hold_the_same_values() -> None:
    values = [0.0, 1e-4, 0.00011, 0.3, 99.0, 1000.0]
    sums = cumulated(counted(values, TIMES), TIMES, COARSE_TIMES)
    assert sums == [sum(value <= end for value in values) for end in COARSE_TIMES]
