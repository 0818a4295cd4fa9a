"""Figures as the live view writes them."""

from __future__ import annotations

from rich.text import Text

from flatwater.memory.live import sparkline
from flatwater.memory.slope import Slope

_UNITS = "B", "KiB", "MiB", "GiB", "TiB"


def size(value: float | None) -> str:
    """Bytes, three figures: ``412 MiB``."""
    if value is None:
        return "–"
    amount, unit = float(value), 0
    while abs(amount) >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 or abs(amount) >= 100 else f"{amount:.1f} {_UNITS[unit]}"


def rate(found: Slope | None) -> Text:
    """A slope per hour; red when it grows for sure, dim while that is open."""
    if found is None:
        return Text("…", style="dim")
    text = f"{'+' if found.per_s > 0 else ''}{size(found.per_s * 3600)}/h"
    if not found.grows:
        return Text("flat" if found.high * 3600 < 1 << 20 else f"{text} ?", style="dim")
    return Text(text, style="bold red")


def duration(seconds: float | None) -> Text:
    """Time to the limit, in the largest two units."""
    if seconds is None:
        return Text("–", style="dim")
    minutes = int(seconds // 60)
    if minutes < 60:
        return Text(f"{minutes} min", style="bold red")
    hours = minutes // 60
    return Text(f"{hours} h {minutes % 60:02d}" if hours < 48 else f"{hours // 24} d {hours % 24} h", style="red")


def change(value: int) -> Text:
    """A number with its sign, coloured."""
    return Text(f"{value:+,}", style="red" if value > 0 else "green" if value < 0 else "dim")


def history(values: tuple[int, ...], grows: bool) -> Text:
    """A sparkline."""
    return Text(sparkline(values), style="red" if grows else "cyan")


def program(command: str, width: int = 60) -> str:
    """A command line without the folders of its programs: ``python worker.py --queue mail``."""
    words = command.split(" ")
    text = " ".join(
        word.rpartition("/")[2] if at < 2 and word.startswith("/") else word for at, word in enumerate(words)
    )
    return text if len(text) <= width else f"{text[: width - 1]}…"
