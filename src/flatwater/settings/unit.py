"""Sizes and durations as people write them."""

from __future__ import annotations

import math
import re
from typing import Any

_MEASURE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_BYTES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS: dict[str, dict[str, float]] = {"bytes": {**_BYTES}, "seconds": _SECONDS}
_EXAMPLES = {"bytes": "512 KiB, 2 MiB, 1 GiB", "seconds": "250ms, 30s, 10m, 2h, 7d"}


def measure(value: Any, unit: str) -> Any:
    """``value`` in ``unit`` (bytes, seconds); what is no text passes through. Raises ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be finite")
    if not unit or not isinstance(value, str):
        return value
    match = _MEASURE.fullmatch(value)
    units = {name.lower(): factor for name, factor in _UNITS[unit].items()}
    if match is None or match[2].lower() not in units:
        raise ValueError(f"no number of {unit}; write for example {_EXAMPLES[unit]}")
    amount = float(match[1]) * units[match[2].lower()]
    return round(amount) if unit == "bytes" else amount


def human(value: float, unit: str) -> str:
    """``value`` in the largest unit that shows it without a fraction."""
    named = [(factor, name) for name, factor in _UNITS[unit].items() if name and factor <= value]
    exact = [pair for pair in named if (value / pair[0]).is_integer()] if value else []
    if not exact:
        return f"{value:g}"
    factor, name = max(exact)
    return f"{value / factor:g} {name}" if unit == "bytes" else f"{value / factor:g}{name}"
