"""Does a figure grow? A straight line through samples, and how sure its slope is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec

_Z = 1.959963984540054  # 97.5 % of the normal distribution lies below


class Slope(msgspec.Struct, frozen=True):
    """``per_s`` is the slope, ``low`` and ``high`` its 95 % confidence interval, over ``samples`` in ``window_s``.

    ``effective`` is how many independent samples these are worth.
    """

    per_s: float
    low: float
    high: float
    samples: int
    window_s: float
    effective: float

    @property
    def grows(self) -> bool:
        """True when the whole interval is above zero."""
        return self.low > 0

    def reaches(self, limit: float, now: float) -> float | None:
        """Seconds until the line that stands at ``now`` reaches ``limit``; None when it does not grow for sure."""
        return max(0.0, (limit - now) / self.per_s) if self.grows else None


def slope(points: Sequence[tuple[float, float]]) -> Slope | None:
    """Least squares over ``(time in seconds, value)``; None for fewer than five points or no time between them.

    Neighbouring samples of memory are alike, so plain least squares is far too sure of itself. The number of samples is
    reduced to ``n (1 - r) / (1 + r)``, where r is the correlation of each residual with the next (B. Santer et al.,
    Statistical significance of trends and trend differences, J. Geophys. Res. 105, 2000, section 4).
    """
    count = len(points)
    if count < 5:
        return None
    mid_x = sum(x for x, _ in points) / count
    mid_y = sum(y for _, y in points) / count
    spread = sum((x - mid_x) ** 2 for x, _ in points)
    if spread <= 0:
        return None
    per_s = sum((x - mid_x) * (y - mid_y) for x, y in points) / spread
    residuals = [y - mid_y - per_s * (x - mid_x) for x, y in points]
    squares = sum(residual * residual for residual in residuals)
    effective = _effective(residuals, squares)
    margin = _quantile(effective - 2) * math.sqrt(squares / (effective - 2) / spread)
    window_s = points[-1][0] - points[0][0]
    return Slope(per_s, per_s - margin, per_s + margin, count, window_s, effective)


def _effective(residuals: Sequence[float], squares: float) -> float:
    count = len(residuals)
    if squares <= 0:
        return float(count)
    products = sum(one * other for one, other in pairwise(residuals))
    correlation = min(max(products / squares, 0.0), 0.999)
    return max(count * (1 - correlation) / (1 + correlation), 4.0)


def _quantile(degrees: float) -> float:
    """97.5 % quantile of Student's t, within 2 % from two degrees of freedom on (Abramowitz and Stegun 26.7.5)."""
    z, v = _Z, degrees
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
