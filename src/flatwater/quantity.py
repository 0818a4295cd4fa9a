"""Sizes and durations as people write and read them.

Sizes are bytes: ``512 KiB``, ``1.5GiB``; ``k``, ``m`` and ``g`` count by 1024 too, ``kB``, ``MB`` and ``GB`` by 1000.
Durations are seconds: ``250ms``, ``30s``, ``10m``, ``2 h``, ``7 days``. The case of units does not matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_KIB: Final = 1024
_BINARY: Final = (("KiB", _KIB), ("MiB", _KIB**2), ("GiB", _KIB**3), ("TiB", _KIB**4))

SIZES: Final[Mapping[str, float]] = {
    "": 1,
    "b": 1,
    **{name.lower(): factor for name, factor in _BINARY},
    **{name[0].lower(): factor for name, factor in _BINARY},
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
}
"""Bytes by unit, in lower case."""

DURATIONS: Final[Mapping[str, float]] = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "days": 86400.0,
}
"""Seconds by unit, in lower case."""

_MEASURE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_UNITS: Final = {"bytes": SIZES, "seconds": DURATIONS}
_EXAMPLES: Final = {"bytes": "512 KiB, 2 MiB, 1 GiB", "seconds": "250ms, 30s, 10m, 2h, 7d"}
_EXACT: Final[Mapping[str, tuple[tuple[str, float], ...]]] = {
    "bytes": (*((f" {name}", factor) for name, factor in reversed(_BINARY[:3])), (" B", 1)),
    "seconds": (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001)),
}


def measure(value: Any, unit: str) -> Any:
    """``value`` in ``unit``: "bytes" (a whole number), "seconds" or "" (it stays as it is). What is no text passes
    through. Raises ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be finite")
    if not unit or not isinstance(value, str):
        return value
    match = _MEASURE.fullmatch(value)
    factor = _UNITS[unit].get(match[2].lower()) if match is not None else None
    if match is None or factor is None:
        raise ValueError(f"no number of {unit}; write for example {_EXAMPLES[unit]}")
    amount = float(match[1]) * factor
    return round(amount) if unit == "bytes" else amount


def exact(value: float, unit: str) -> str:
    """``value``, in "bytes" or "seconds", in the largest unit that shows it without a fraction; :func:`measure` reads
    it back."""
    for name, factor in _EXACT[unit]:
        count = value / factor
        if count >= 1 and count.is_integer() and count * factor == value:
            return f"{count:.0f}{name}"
    return format(Decimal(repr(value)).normalize(), "f")


def size(value: float) -> str:
    """Bytes in three figures: ``613 MiB``."""
    for unit, factor in reversed(_BINARY):
        if abs(value) >= factor * 0.9995:
            return f"{_figures(value / factor)} {unit}"
    return f"{value:.0f} B"


def rate(per_s: float) -> str:
    """Bytes per second in the unit of time that gives a number one can read: ``+2.1 MiB/min``."""
    for name, factor in (("s", 1), ("min", 60), ("h", 3600)):
        if abs(per_s * factor) >= _KIB**2 or name == "h":
            break
    shown = size(abs(per_s * factor))
    return f"{'-' if per_s < 0 else '+'}{shown}/{name}"


def duration(seconds: float) -> str:
    """Seconds in three figures: ``45 s``, ``12 min``, ``3.5 h``, ``8.2 days``."""
    for name, factor in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= factor * (2 if name == "days" else 1.5):
            return f"{_figures(seconds / factor)} {name}"
    return f"{seconds:.3g} s"


def _figures(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
