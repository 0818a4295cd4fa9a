"""Figures as the live view writes them."""

from __future__ import annotations

from rich.text import Text

from flatwater import quantity
from flatwater.memory.live import sparkline
from flatwater.memory.slope import Slope


def size(value: float | None) -> str:
    """Bytes, three figures: ``412 MiB``."""
    return "–" if value is None else quantity.size(value)


def rate(found: Slope | None) -> Text:
    """A slope per hour; red when it grows for sure, dim while that is open."""
    if found is None:
        return Text("…", style="dim")
    text = f"{'+' if found.per_s > 0 else ''}{size(found.per_s * 3600)}/h"
    if not found.grows:
        return Text("flat" if found.high * 3600 < 1 << 20 else f"{text} ?", style="dim")
    return Text(text, style="bold red")


def duration(seconds: float | None) -> Text:
    """Time to the limit; bold within the hour."""
    if seconds is None:
        return Text("–", style="dim")
    return Text(quantity.duration(seconds), style="bold red" if seconds < 3600 else "red")


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
