"""Bytes, rates and durations as people read them."""

from __future__ import annotations


def size(value: float) -> str:
    """Bytes as people read them: ``613 MiB``."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {unit}" if abs(value) < 1000 * factor else f"{value / factor:.0f} {unit}"
    return f"{value:.0f} B"


def rate(per_s: float) -> str:
    """Bytes per second in the unit of time that gives a number one can read: ``+2.1 MiB/min``."""
    for name, factor in (("s", 1), ("min", 60), ("h", 3600)):
        if abs(per_s * factor) >= 1024**2 or name == "h":
            break
    shown = size(abs(per_s * factor))
    return f"{'-' if per_s < 0 else '+'}{shown}/{name}"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``, ``8.2 days``."""
    for name, factor in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= factor * (2 if name == "days" else 1.5):
            return f"{seconds / factor:.3g} {name}" if seconds < 1000 * factor else f"{seconds / factor:.0f} {name}"
    return f"{seconds:.3g} s"
