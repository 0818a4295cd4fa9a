"""Which task grows the process: a row per task name, and growth per call where tasks overlap. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from flatwater.bounded import check_bound
from flatwater.guard.meter import Sums

OTHERS = "(other tasks)"
# How much the company of other tasks may inflate the variance of a task's growth; above, they cannot be told apart.
_MAX_INFLATION = 1e6


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One task name, in bytes and seconds.

    ``peak`` is the highest level of the process while such a task ran; ``retained`` the mean difference of the level
    after and before, over the ``alone`` calls that overlapped no other. ``per_call`` is the growth that a regression
    over intervals gives to each call, with its 95 % interval ``low`` to ``high``; ``share`` its part of the process's
    whole growth. Both are None until there is enough to tell.
    """

    name: str
    count: int
    failed: int
    total_s: float
    max_s: float
    peak: int
    rise: int
    alone: int
    retained: float | None
    per_call: float | None = None
    low: float | None = None
    high: float | None = None
    share: float | None = None

    @property
    def mean_s(self) -> float:
        """Mean duration."""
        return self.total_s / self.count if self.count else 0.0

    @property
    def grows(self) -> bool:
        """True when the whole interval is above zero."""
        return self.low is not None and self.low > 0


class Table:
    """Rows by task name, at most ``max_names``; further names share the row ``(other tasks)``.

    Intervals of at least ``interval_s`` are closed at the end of a task: the change of the level in an interval is the
    sum over tasks of calls times growth per call, which least squares solves for. Intervals with many tasks at once
    tell as much as those with one, so overlapping tasks are told apart as soon as their mixture changes. Where no task
    of an interval overlapped another, each was measured by itself: then an unchanging mixture is told apart, too.

    Until the open interval is over (``until``, by the clock of ``add``) a task may be added to its ``sums`` alone.
    """

    def __init__(self, *, max_names: int = 64, interval_s: float = 0.1) -> None:
        check_bound("max_names", max_names, where="table")
        check_bound("interval_s", interval_s, where="table")
        self._max_names = max_names
        self._interval_s = interval_s
        self.sums: dict[str, Sums] = {}  # copied, in one step, to be walked: another thread may add a name
        self._from, self.until, self._began = 0.0, -float("inf"), 0  # the open interval, and its first level
        self._fit = Regression()
        self._first: int | None = None
        self._level = 0

    def add(
        self, name: str, now: float, seconds: float, before: int, after: int, peak: int, alone: bool, failed: bool
    ) -> None:
        """A task has ended; levels in bytes."""
        sums = self.sums.get(name)
        if sums is None:
            name, sums = self._enter(name)
        sums.add(seconds, before, after, peak, alone, failed)
        self._level = after
        if not self._from <= now < self.until:
            self._close(now, before, after)

    def rows(self, level: int | None = None) -> tuple[Row, ...]:
        """All rows, the fastest growing first; with the level now, in bytes, where tasks were booked past ``add``."""
        fits = self._fit.solve()
        growth = (self._level if level is None else level) - self._first if self._first is not None else 0
        rows = [_row(name, sums, fits.get(name), growth) for name, sums in self.sums.copy().items()]
        return tuple(sorted(rows, key=lambda row: (-(row.share or 0.0), -row.total_s)))

    def __len__(self) -> int:
        return len(self.sums)

    def _enter(self, name: str) -> tuple[str, Sums]:
        if len(self.sums) >= self._max_names - 1 and name != OTHERS:
            name = OTHERS
        return name, self.sums.setdefault(name, Sums())

    def _close(self, now: float, before: int, after: int) -> None:
        """An interval is over: what was called in it, and how the level changed."""
        if self._first is None:
            self._first = self._began = before
        else:
            self._fit.add(self._observed(after - self._began))
            for sums in self.sums.copy().values():
                sums.calls = 0
                sums.closed_alone, sums.closed_retained = sums.alone, sums.retained
            self._began = after
        self._from, self.until = now, now + self._interval_s

    def _observed(self, change: int) -> list[tuple[dict[str, int], float]]:
        called = [(name, sums) for name, sums in self.sums.copy().items() if sums.calls]
        if all(sums.alone - sums.closed_alone == sums.calls for _, sums in called):
            return [({name: sums.calls}, sums.retained - sums.closed_retained) for name, sums in called]
        return [({name: sums.calls for name, sums in called}, change)]


def _row(name: str, sums: Sums, fit: tuple[float, float] | None, growth: int) -> Row:
    per_call, margin = fit if fit is not None else (None, None)
    share = None
    if per_call is not None and growth > 0:
        share = min(max(per_call * sums.count / growth, 0.0), 1.0)
    return Row(
        name=name,
        count=sums.count,
        failed=sums.failed,
        total_s=sums.total_s,
        max_s=sums.max_s,
        peak=sums.peak,
        rise=sums.rise,
        alone=sums.alone,
        retained=sums.retained / sums.alone if sums.alone else None,
        per_call=per_call,
        low=None if per_call is None or margin is None else per_call - margin,
        high=None if per_call is None or margin is None else per_call + margin,
        share=share,
    )


class Regression:
    """Least squares for ``change = Σ calls × growth``, kept as sums of products: its size depends on names alone.

    The first ``warm_up`` intervals are left out: imports and caches that fill once are no growth per call.
    """

    def __init__(self, *, warm_up: int = 2) -> None:
        self._left_out = warm_up
        self._products: dict[tuple[str, str], float] = {}
        self._targets: dict[str, float] = {}
        self._squares = 0.0
        self.intervals = 0

    def add(self, observed: list[tuple[dict[str, int], float]]) -> None:
        """An interval: how often which tasks ended, and by how many bytes that changed the level; several, if apart."""
        if self._left_out > 0:
            self._left_out -= 1
            return
        for calls, change in observed:
            self._add(calls, change)

    def _add(self, calls: dict[str, int], change: float) -> None:
        self.intervals += 1
        self._squares += change * change
        products, targets = self._products, self._targets
        for one, often in calls.items():
            targets[one] = targets.get(one, 0.0) + often * change
            for other, count in calls.items():
                key = (one, other)
                products[key] = products.get(key, 0.0) + often * count

    def solve(self) -> dict[str, tuple[float, float]]:
        """Per name the growth per call and its 95 % margin; nothing before there are three intervals to spare."""
        names = sorted(self._targets)
        freedom = self.intervals - len(names)
        if not names or freedom < 3:
            return {}
        matrix = [[self._products.get((one, other), 0.0) for other in names] for one in names]
        for at in range(len(names)):  # tasks that always come together: see _MAX_INFLATION
            matrix[at][at] *= 1 + 1e-9
        inverse = inverted(matrix)
        if inverse is None:
            return {}
        targets = [self._targets[name] for name in names]
        growth = [sum(row[at] * targets[at] for at in range(len(names))) for row in inverse]
        residual = max(self._squares - sum(g * t for g, t in zip(growth, targets, strict=True)), 0.0)
        quantile = 1.96 + 2.4 / freedom + 4.6 / freedom**2  # Student's t at 97.5 %
        margins = [quantile * math.sqrt(max(residual / freedom * inverse[at][at], 0.0)) for at in range(len(names))]
        known = [at for at in range(len(names)) if inverse[at][at] * matrix[at][at] < _MAX_INFLATION]
        return {names[at]: (growth[at], margins[at]) for at in known}


def inverted(matrix: Sequence[Sequence[float]]) -> list[list[float]] | None:
    """The inverse by Gauss and Jordan with pivots; None for a singular matrix."""
    size = len(matrix)
    rows = [[*row, *(float(at == column) for column in range(size))] for at, row in enumerate(matrix)]
    for at in range(size):
        best = max(range(at, size), key=lambda row: abs(rows[row][at]))
        if abs(rows[best][at]) < 1e-12:
            return None
        rows[at], rows[best] = rows[best], rows[at]
        pivot = rows[at][at]
        rows[at] = [value / pivot for value in rows[at]]
        for other in range(size):
            if other != at and (factor := rows[other][at]):
                rows[other] = [value - factor * base for value, base in zip(rows[other], rows[at], strict=True)]
    return [row[size:] for row in rows]
