"""A histogram of fixed size, for durations and sizes of any order of magnitude."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import ceil, frexp, inf, ldexp
from typing import Self

from flatwater.bounded.ledger import Ledger, Usage
from flatwater.errors import InputError

_STEPS = 16  # linear steps in each power of two: a bucket is at most 1/16 wider than its lower edge
_LOWEST = -20  # 2**-20 is about a microsecond (or a millionth of anything)
_HIGHEST = 44  # 2**44 seconds or bytes: half a million years, 16 TiB
_BUCKETS = (_HIGHEST - _LOWEST) * _STEPS + 2  # one for what lies below, one for what lies above

MAX_RELATIVE_ERROR = 0.5 / _STEPS
"""How far a quantile may be from the truth, as a share of it, for values in 1e-6 … 1e13."""


class HistogramStatistics(Usage, frozen=True, kw_only=True):
    """Figures in the unit of the values; ``minimum``, ``maximum`` and quantiles are 0 when ``count`` is."""

    count: int
    total: float
    minimum: float
    maximum: float
    p50: float
    p90: float
    p99: float
    p999: float


class Histogram:
    """Counts of values in logarithmic buckets: 8 KB for ever, 3 % exact, whatever comes in.

    The same idea as HdrHistogram's (http://hdrhistogram.org): powers of two, each cut in equal steps.
    """

    kind = "histogram"

    def __init__(self, name: str, *, ledger: Ledger) -> None:
        self.name = name
        self._counts = array("Q", bytes(8 * _BUCKETS))
        self._total = 0.0
        self._minimum = inf
        self._maximum = -inf
        ledger.register(self)

    def add(self, value: float) -> None:
        """Count one value. Zero and negative ones (clocks do step back) fall into the lowest bucket; NaN is ignored."""
        if value != value:
            return
        self._counts[_bucket(value)] += 1
        self._total += value
        if value < self._minimum:
            self._minimum = value
        if value > self._maximum:
            self._maximum = value

    def merge(self, other: Histogram) -> Self:
        """Add the counts of ``other`` to these."""
        self._counts = array("Q", map(int.__add__, self._counts, other._counts))
        self._total += other._total
        self._minimum = min(self._minimum, other._minimum)
        self._maximum = max(self._maximum, other._maximum)
        return self

    def clear(self) -> None:
        self._counts = array("Q", bytes(8 * _BUCKETS))
        self._total, self._minimum, self._maximum = 0.0, inf, -inf

    @property
    def count(self) -> int:
        return sum(self._counts)

    def quantile(self, share: float) -> float:
        """The value below which ``share`` (0 … 1) of the values lie; 0 when there are none."""
        return self.quantiles([share])[0]

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        """As ``quantile``, for several shares in one pass over the buckets. Raises InputError outside 0 … 1."""
        running = list(accumulate(self._counts))
        return [self._at(running, share) for share in shares]

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """For each bound, the count of values in buckets that end at or below it (Prometheus's ``le`` buckets)."""
        running = list(accumulate(self._counts))
        indices = [_BUCKETS if bound == inf else _bucket(bound) for bound in bounds]
        return [running[index - 1] if index else 0 for index in indices]

    def statistics(self) -> HistogramStatistics:
        count = self.count
        p50, p90, p99, p999 = self.quantiles((0.5, 0.9, 0.99, 0.999))
        return HistogramStatistics(
            size=_BUCKETS,
            bound=_BUCKETS,
            bytes=8 * _BUCKETS,
            max_bytes=8 * _BUCKETS,
            count=count,
            total=self._total,
            minimum=self._minimum if count else 0.0,
            maximum=self._maximum if count else 0.0,
            p50=p50,
            p90=p90,
            p99=p99,
            p999=p999,
        )

    def _at(self, running: list[int], share: float) -> float:
        if not 0 <= share <= 1:
            raise InputError(f"a quantile of {share}", where=self.name, hint="give a share between 0 and 1")
        count = running[-1]
        if not count:
            return 0.0
        index = bisect_left(running, max(1, ceil(share * count)))
        return min(max(_middle(index), self._minimum), self._maximum)


def _bucket(value: float) -> int:
    """The bucket of ``value``: index 0 below the lowest edge, the last one from the highest edge on."""
    if value <= 0:
        return 0
    if value == inf:
        return _BUCKETS - 1
    mantissa, exponent = frexp(value)  # value = mantissa * 2**exponent, mantissa in 0.5 … 1
    index = (exponent - 2 - _LOWEST) * _STEPS + int(mantissa * (2 * _STEPS)) + 1
    return 0 if index < 0 else index if index < _BUCKETS else _BUCKETS - 1  # quicker than min and max


def _lower(index: int) -> float:
    """The lower edge of a bucket, from 1 on."""
    octave, step = divmod(index - 1, _STEPS)
    return ldexp(1 + step / _STEPS, octave + _LOWEST)


def _middle(index: int) -> float:
    if index == 0:
        return 0.0
    if index == _BUCKETS - 1:
        return inf  # the caller clamps it to the maximum
    return (_lower(index) + _lower(index + 1)) / 2
