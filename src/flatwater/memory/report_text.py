"""A diagnosis as text: the answer first, then what it rests on. A person reads it in ten seconds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from flatwater.memory.advice import Advice
from flatwater.memory.diagnosis import Diagnosis, Finding
from flatwater.memory.holder import Holder
from flatwater.memory.verdict import Figure, Verdict
from flatwater.quantity import duration, rate, size

WIDTH = 100
_TITLES = {
    "python-objects": "Python objects that are still referred to",
    "cyclic-garbage": "cyclic garbage that nobody collects",
    "malloc-free": "free memory that malloc keeps",
    "pymalloc-pinned": "Python's arenas, pinned by few objects",
    "native": "native memory outside Python",
    "thread-stacks": "threads and their stacks",
    "page-cache": "page cache",
    "plateau": "nothing",
}


def write(diagnosis: Diagnosis, *, width: int = WIDTH) -> str:
    """Plain text, without colours."""
    return "\n".join(_lines(diagnosis, width)) + "\n"


def headline(verdict: Verdict) -> str:
    """The answer in one line."""
    if verdict.kind == "plateau":
        return f"PLATEAU  {verdict.reason}"
    word = "GROWING" if verdict.growing else "HELD"
    return f"{word}  {verdict.kind}: {_TITLES[verdict.kind]}"


def slope_text(verdict: Verdict) -> str:
    """The slope with its interval, and when the limit is reached."""
    low, high = verdict.ci
    text = f"{rate(verdict.slope_bytes_per_s)} ({rate(low)} to {rate(high)}, 95 %, by {verdict.measured})"
    text += f", {size(verdict.rss)} resident"
    if verdict.limit:
        text += f" of {size(verdict.limit)} ({verdict.limit_of})"
    if verdict.limit_in_s is not None:
        text += f", full in {duration(verdict.limit_in_s)}"
    return text


def _lines(diagnosis: Diagnosis, width: int) -> Iterator[str]:
    verdict = diagnosis.verdict
    yield headline(verdict)
    yield f"  {slope_text(verdict)}"
    if verdict.kind != "plateau":
        yield from _wrapped(verdict.reason, "  ", width)
    if diagnosis.goes_with is not None:
        yield from _wrapped(goes_with(diagnosis.goes_with), "  ", width)
    for number, found in enumerate(diagnosis.findings, 1):
        yield ""
        yield from _finding(number, found, width, diagnosis.advice)
    if diagnosis.advice is not None:
        yield ""
        yield from _advice(diagnosis.advice, "  ", width)
    for part in verdict.others:
        yield from _wrapped(f"also {part.kind}: {part.reason}", "  ", width)
    if diagnosis.holders:
        yield ""
        yield "  held now, not growing:"
    for holder in diagnosis.holders:
        yield from _wrapped(f"{holder.path} ({held(holder)}) retains {size(holder.retained_bytes)}", "  ", width, "  ")
    if diagnosis.trimmed is not None:
        before, after = diagnosis.trimmed
        yield f"  trimmed: {size(before)} → {size(after)} resident, {size(max(0, before - after))} given back"
    yield ""
    yield from _evidence(diagnosis)
    yield f"signature {diagnosis.signature}   again: {diagnosis.command}"


def goes_with(work: tuple[str, str]) -> str:
    """With which work memory grows."""
    return f"grows with each {' '.join(work).strip()}"


def held(holder: Holder) -> str:
    """What a holder is."""
    return holder.type if holder.size is None else f"{holder.type}, {holder.size:,} entries"


def _finding(number: int, found: Finding, width: int, told: Advice | None) -> Iterator[str]:
    one = found.suspect
    yield f"{number}. {one.owner}"
    retained = f"retains {size(one.retained)}, {rate(one.bytes_per_s)}"
    items = f"{one.items.count:,} × {one.items.type}" if one.items.type else "no entries seen"
    yield f"   {one.length:,} entries, {items}; {retained}"
    if found.per is not None:
        yield f"   {found.per['text']} ({size(found.per['bytes'])} each)"
    yield from _places("inserted", found.makers.get("inserted_at"))
    yield from _places("allocated", found.makers.get("allocated_at"))
    for row in (found.makers.get("coroutines") or [])[:2]:
        made = row.get("created_at")
        created = f", created at {place(made)}" if made else ""
        yield f"   coroutine {row['name']} ({PurePath(row['file']).name}:{row['line']}){created}"
    if found.advice is not None and found.advice != told:  # the verdict's advice stands below all suspects
        yield from _advice(found.advice, "   ", width)


def place(row: dict[str, Any]) -> str:
    """``file:line in function()``; the last two parts of the file's path."""
    file = "/".join(PurePath(row["file"]).parts[-2:]).lstrip("/")
    function = row.get("function", "")
    return f"{file}:{row['line']}" + (f" in {function}()" if function else "")


def share(row: dict[str, Any]) -> str:
    """The part of the events that a line made; a line without a share was not seen but read."""
    return f"{row['share']:.0%}" if row["share"] else "by its source"


def _places(verb: str, rows: list[dict[str, Any]] | None) -> Iterator[str]:
    for row in (rows or [])[:2]:
        yield f"   {verb:<9} {place(row)}  {share(row)}"


def _advice(advice: Advice, indent: str, width: int) -> Iterator[str]:
    yield from _wrapped(f"why  {advice.reason}", indent, width, "     ")
    yield from _wrapped(f"do   {advice.remedy}", indent, width, "     ")


def _wrapped(text: str, indent: str, width: int, hanging: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + hanging)


def _evidence(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"evidence over {diagnosis.window_s:g} s ({diagnosis.took_s:.1f} s in all, paused {diagnosis.paused_s:.2f} s)"
    for figure in diagnosis.verdict.figures:
        yield f"  {figure.name:<32} {shown(figure, figure.first):>12} → {shown(figure, figure.last):<12} {pace(figure)}"
    for note in diagnosis.notes:
        yield from _wrapped(f"note: {note}", "  ", WIDTH)


def shown(figure: Figure, value: float) -> str:
    """A figure's value in its unit."""
    return size(value) if figure.unit == "bytes" else f"{value:,.0f}"


def pace(figure: Figure) -> str:
    """A figure's slope, or that it has none."""
    if figure.per_s is None or figure.low is None or figure.high is None:
        return ""
    if figure.low <= 0 <= figure.high:
        return "±"
    digits = 0 if abs(figure.per_s) >= 10 else 2
    return rate(figure.per_s) if figure.unit == "bytes" else f"{figure.per_s:+,.{digits}f}/s"
