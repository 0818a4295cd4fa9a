"""Growing, plateau or neither: the trend of the last part of a series, after the warm-up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Literal

import msgspec

from flatwater.memory.recording_read import Point, merged
from flatwater.memory.slope import Slope, slope

Kind = Literal["growing", "shrinking", "plateau", "unclear"]

MIN_POINTS: Final = 12  # fewer say nothing
_POINTS: Final = 240
_MIN_PART: Final = 8
_MIN_START: Final = 2  # a program that was seen while it was being loaded
_MIN_SHARE: Final = 0.2  # of the time that the last part must be
_MAX_SPLITS: Final = 3
# A part of the series is another one when two lines leave less than this of the squares that one leaves.
_GAIN: Final = 0.6
# Below this a change is noise of the kernel's own counting, whatever the line says.
_SURE: Final = 1.5
_SMALL_BYTES: Final = 512 * 1024
_SMALL_SHARE: Final = 0.01


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """``kind`` of the part from ``since`` to ``until`` (seconds); what lies before is warm-up or another phase.

    ``level`` is the mean of the part, ``start`` and ``end`` the ends of its line; ``per_s`` in units per second.
    """

    kind: Kind
    since: float
    until: float
    level: float
    start: float
    end: float
    per_s: float
    low: float
    high: float
    samples: int

    @property
    def grows(self) -> bool:
        return self.kind == "growing"


def trend(points: Sequence[Point], *, ended: bool = False) -> Trend | None:
    """None for fewer than `MIN_POINTS`. Of a process that has ``ended`` the last two are left out: it was leaving."""
    if ended and len(points) >= 2 * MIN_POINTS:
        points = points[:-2]
    if len(points) < MIN_POINTS:
        return None
    few = list(points) if len(points) <= _POINTS else merged(list(points), _POINTS)
    start = _last_part(few)
    part = few[start:]
    found = slope([(point.t, point.value) for point in part])
    if found is None:
        return None
    level = sum(point.value for point in part) / len(part)
    middle = sum(point.t for point in part) / len(part)
    first, last = part[0].t, part[-1].t
    return Trend(
        kind=_kind(found, level),
        since=first,
        until=last,
        level=level,
        start=level + found.per_s * (first - middle),
        end=level + found.per_s * (last - middle),
        per_s=found.per_s,
        low=found.low,
        high=found.high,
        samples=sum(1 for point in points if point.t >= first),
    )


def _kind(found: Slope, level: float) -> Kind:
    small = max(_SMALL_BYTES, _SMALL_SHARE * level)
    change = found.per_s * found.window_s
    # Many processes are judged at once, after a search for the best split: one in forty would be wrong by chance.
    sure = abs(found.per_s) > _SURE * (found.high - found.per_s)
    if sure and abs(change) > small:
        return "growing" if change > 0 else "shrinking"
    # A plateau is known as one when even the ends of the interval change little.
    widest = max(abs(found.low), abs(found.high)) * found.window_s
    return "plateau" if widest <= max(4 * small, 0.05 * level) else "unclear"


def _last_part(points: Sequence[Point]) -> int:
    """Where the last part begins that one line describes: split at the best place while that explains much."""
    start = 0
    span = points[-1].t - points[0].t
    for _ in range(_MAX_SPLITS):
        place = _split(points[start:])
        if place is None or points[-1].t - points[start + place].t < _MIN_SHARE * span:
            return start
        start += place
    return start


def _split(points: Sequence[Point]) -> int | None:
    """The place that leaves the least squares around two lines, if they are much less than around one."""
    count = len(points)
    if count < _MIN_START + _MIN_PART:
        return None
    sums = _Sums(points)
    whole = sums.squares(0, count)
    floor = count * (0.002 * max(1.0, abs(points[-1].value))) ** 2  # a wiggle of two thousandths is no phase
    if whole <= floor:
        return None
    best = min(
        range(_MIN_START, count - _MIN_PART + 1), key=lambda place: sums.squares(0, place) + sums.squares(place, count)
    )
    left = sums.squares(0, best) + sums.squares(best, count)
    return best if left < _GAIN * whole and _unlike(sums, best, count) else None


def _unlike(sums: _Sums, place: int, count: int) -> bool:
    """Two halves of one wave are no phases: the lines must differ by more than the samples around them do."""
    before, after = sums.line(0, place), sums.line(place, count)
    noise = math.sqrt((sums.squares(0, place) + sums.squares(place, count)) / count)
    at = sums.time(place)
    jump = abs(before[0] + before[1] * at - after[0] - after[1] * at)
    bend = abs(before[1] - after[1]) * min(at - sums.time(0), sums.time(count - 1) - at)
    return jump > 2 * noise or bend > 2 * noise


class _Sums:
    """Running sums, so that the least squares of any part cost nothing."""

    def __init__(self, points: Sequence[Point]) -> None:
        zero, level = points[0].t, points[0].value
        self._times = [point.t - zero for point in points]
        pairs = [(point.t - zero, point.value - level) for point in points]
        self._x = list(accumulate((x for x, _ in pairs), initial=0.0))
        self._y = list(accumulate((y for _, y in pairs), initial=0.0))
        self._xx = list(accumulate((x * x for x, _ in pairs), initial=0.0))
        self._xy = list(accumulate((x * y for x, y in pairs), initial=0.0))
        self._yy = list(accumulate((y * y for _, y in pairs), initial=0.0))

    def time(self, place: int) -> float:
        return self._times[place]

    def line(self, start: int, end: int) -> tuple[float, float]:
        """Height at time zero, and slope."""
        n = end - start
        x, y = self._x[end] - self._x[start], self._y[end] - self._y[start]
        spread = self._xx[end] - self._xx[start] - x * x / n
        per = (self._xy[end] - self._xy[start] - x * y / n) / spread if spread > 0 else 0.0
        return (y - per * x) / n, per

    def squares(self, start: int, end: int) -> float:
        n = end - start
        x, y = self._x[end] - self._x[start], self._y[end] - self._y[start]
        spread = self._xx[end] - self._xx[start] - x * x / n
        joint = self._xy[end] - self._xy[start] - x * y / n
        squares = self._yy[end] - self._yy[start] - y * y / n
        return max(0.0, squares - joint * joint / spread if spread > 0 else squares)
