from __future__ import annotations

from math import ceil, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.bounded import Histogram, Ledger
from flatwater.bounded.histogram import MAX_RELATIVE_ERROR
from flatwater.errors import InputError

VALUES = st.lists(st.floats(1e-6, 1e13), min_size=1, max_size=200)


def made(values: list[float]) -> Histogram:
    histogram = Histogram("h", ledger=Ledger())
    for value in values:
        histogram.add(value)
    return histogram


def test_empty(ledger: Ledger) -> None:
    histogram = Histogram("h", ledger=ledger)
    assert histogram.quantile(0.5) == 0
    statistics = histogram.statistics()
    assert (statistics.count, statistics.minimum, statistics.maximum) == (0, 0, 0)
    assert statistics.bytes == 8 * statistics.size


@given(VALUES, st.floats(0, 1))
def test_quantile_is_near_the_true_one(values: list[float], share: float) -> None:
    true = sorted(values)[max(1, ceil(share * len(values))) - 1]
    assert made(values).quantile(share) == pytest.approx(true, rel=MAX_RELATIVE_ERROR * 1.001)


@given(VALUES, VALUES)
def test_merge_is_as_if_counted_in_one(left: list[float], right: list[float]) -> None:
    merged, single = made(left).merge(made(right)), made(left + right)
    assert merged.quantiles([0, 0.1, 0.5, 0.9, 1]) == single.quantiles([0, 0.1, 0.5, 0.9, 1])
    assert merged.count == len(left) + len(right)
    assert merged.statistics().total == pytest.approx(sum(left + right))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50))
def test_any_float_is_taken(values: list[float]) -> None:
    histogram = made(values)
    assert histogram.count == sum(value == value for value in values)
    histogram.statistics()


def test_odd_values() -> None:
    histogram = made([-1.0, 0.0, nan, inf, 1e300])
    assert histogram.count == 4
    assert histogram.quantile(0) == 0
    assert histogram.quantile(1) == inf
    histogram.clear()
    assert histogram.count == 0


@given(VALUES, st.lists(st.floats(1e-5, 1e13), min_size=1, max_size=5))
def test_cumulative_counts(values: list[float], bounds: list[float]) -> None:
    histogram = made(values)
    for bound, count in zip(bounds, histogram.cumulative(bounds), strict=True):
        # Whole buckets are counted: those that end above the bound, by at most one bucket, are not.
        assert sum(value < bound * (1 - 2 * MAX_RELATIVE_ERROR) for value in values) <= count
        assert count <= sum(value <= bound for value in values)
    assert histogram.cumulative([inf]) == [len(values)]


def test_share_is_checked() -> None:
    with pytest.raises(InputError, match="a quantile of 95"):
        made([1]).quantile(95)
