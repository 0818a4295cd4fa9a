"""Does something leave memory behind each time it is done? Cycles, statistics, and who holds what is left.

:class:`Cycles` says how often to run the thing and looks at the heap between; it never runs it itself, so functions,
coroutines and whole tests are measured alike. Used by the pytest plugin; usable anywhere.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from flatwater.memory import heap
from flatwater.memory.slope import Slope, slope
from flatwater.memory.usage import malloc

_SHOWN = 3
_SHORTEST = 20
_BATCHES = 20
Mark: TypeAlias = "array[int]"
Row: TypeAlias = "array[float]"
Traced: TypeAlias = dict[str, int]
_SHIFT = 48
# What looks methods up by names made anew (opening a file does) fills CPython's cache of them for hundreds of cycles.
_forget_types: Callable[[], None] = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
_OWN = ("<frozen", "tracemalloc.py", str(Path(__file__).parent))


class Grows(AssertionError):
    """The cycles leave memory behind; the message says how much, who holds it and which line makes it."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A container that got longer in both halves of the cycles: entries per cycle, and who holds it."""

    container: heap.Container
    per_cycle: float
    path: str


@dataclass(slots=True)
class Cycles:
    """A measurement of ``cycles`` cycles: a quarter to warm up (at least ``warmup``), the rest in 20 batches.

    Run as many cycles as each number of :meth:`plan` says. It ends, or raises :class:`Grows` when blocks, malloc's
    bytes or the entries of a container grow with 95 % confidence over all samples *and* over the second half alone, so
    that warm-up, caches that fill up and single jumps are no growth.

    ``max_blocks`` and ``max_bytes`` a cycle, and ``max_entries`` a cycle of one container, are not worth a word.
    """

    cycles: int = 200
    warmup: int = 10
    max_blocks: float = 0.5
    max_bytes: float = 1024.0
    max_entries: float = 0.5
    between: Callable[[], object] = lambda: None  # before each collection: forget what is not the thing's own
    # Written in place, for the measurement itself must not grow: (cycle, blocks of pymalloc, bytes of malloc) by turns.
    _figures: Row = field(default_factory=lambda: array("d", bytes(8 * 3 * (_BATCHES + 1))))
    _samples: int = 0
    _done: int = 0

    def plan(self) -> Iterator[int]:
        """Numbers of cycles to run, one after another. Raises Grows, and ValueError for fewer than 40 cycles."""
        __tracebackhide__ = True  # for pytest, here and below: the message says it all
        if self.cycles < 40:
            raise ValueError(f"cycles={self.cycles} are too few to tell growth from noise: give 40 or more")
        first = max(self.warmup, self.cycles // 4)
        batch = max(1, (self.cycles - first) // _BATCHES)
        yield self._count(first)
        self._sample()
        marks = [_mark()]
        for at in range(_BATCHES):
            yield self._count(batch)
            self._sample()
            if at == _BATCHES // 2 - 1:
                marks.append(_mark())
        grown = self._grown(marks, batch * _BATCHES // 2)
        if grown or self._grows():
            yield from self._explain(grown, batch * 5)

    def blocks(self) -> Slope | None:
        """Blocks of pymalloc per cycle."""
        return slope(self._points(1))

    def bytes(self) -> Slope | None:
        """Bytes that malloc has given out, per cycle; 0 where malloc does not tell."""
        return slope(self._points(2))

    def _points(self, figure: int) -> list[tuple[float, float]]:
        end = 3 * self._samples
        return list(zip(self._figures[0:end:3], self._figures[figure:end:3], strict=True))

    def _count(self, number: int) -> int:
        self._done += number
        return number

    def _settle(self) -> None:
        self.between()
        _forget_types()
        gc.collect()

    def _sample(self) -> None:
        self._settle()
        given = malloc()
        at, self._samples = 3 * self._samples, self._samples + 1
        self._figures[at] = self._done
        self._figures[at + 1] = sys.getallocatedblocks()
        self._figures[at + 2] = given.used + given.mapped if given else 0

    def _grows(self) -> bool:
        return _steady(self._points(1), self.max_blocks) or _steady(self._points(2), self.max_bytes)

    def _grown(self, marks: list[Mark], half: int) -> list[tuple[heap.Container, float]]:
        """Containers that got longer in the first half and again in the second."""
        start, middle = (dict(zip(mark[::2], mark[1::2], strict=True)) for mark in marks[:2])
        rows = []
        for now in heap.containers(_SHORTEST):
            then, before = middle.get(now.address, 0), start.get(now.address, 0)
            if then and min(now.length - then, then - before) > self.max_entries * half:
                rows.append((now, (now.length - then) / half))
        return sorted(rows, key=lambda row: -row[1])

    def _explain(self, grown: list[tuple[heap.Container, float]], number: int) -> Iterator[int]:
        __tracebackhide__ = True
        tracing = tracemalloc.is_tracing()
        if not tracing:
            tracemalloc.start()
        try:
            census = heap.census("containers")
            self._settle()
            before = _traced()
            yield self._count(number)
            self._settle()
            lines = _lines(before, _traced(), number)
            types = heap.census_diff(census, heap.census("containers"))
        finally:
            if not tracing:
                tracemalloc.stop()
        raise Grows(self._message(_paths(grown), types, lines, number))

    def _message(self, grown: list[Growth], types: tuple[heap.TypeGrowth, ...], lines: list[str], number: int) -> str:
        text = [f"{self._done} cycles leave memory behind: {self._amount()}"]
        text += [f"  held by  {row.path}, +{row.per_cycle:.3g} a cycle" for row in grown[:_SHOWN]]
        kinds = [
            f"{row.type} +{row.count / number:.3g}"
            for row in types
            if row.count * 2 >= number and not row.type.startswith("flatwater.memory.")
        ]
        text += [f"  objects  {', '.join(kinds[:_SHOWN])} a cycle"] if kinds else []
        text += [f"  made at  {line} a cycle" for line in lines[:_SHOWN]]
        if not grown and kinds:
            text += _youngest(kinds[0].rpartition(" +")[0])
        if not grown and not kinds:
            text.append("  no container and no type grows: something native does")
        text.append("  if this is a cache with a bound, give more cycles than it holds entries")
        return "\n".join(text)

    def _amount(self) -> str:
        parts = [
            f"{found.per_s:+.3g} {name} a cycle ({found.low:.3g} … {found.high:.3g})"
            for found, name in ((self.blocks(), "blocks"), (self.bytes(), "bytes of malloc"))
            if found
        ]
        return ", ".join(parts)


def _mark() -> Mark:
    """Addresses and lengths of containers by turns: one block, however many there are."""
    return array("Q", [number for row in heap.containers(_SHORTEST) for number in (row.address, row.length)])


def _steady(points: list[tuple[float, float]], least: float) -> bool:
    """Growth over all samples and over the second half, with confidence and worth a word in both."""
    whole, late = slope(points), slope(points[len(points) // 2 :])
    return bool(whole and late and min(whole.low, late.low) > 0 and min(whole.per_s, late.per_s) > least)


def _paths(grown: list[tuple[heap.Container, float]]) -> list[Growth]:
    if not grown:
        return []
    try:
        with heap.graph() as graph:
            found = [Growth(row, rate, str(graph.path_to(None, address=row.address))) for row, rate in grown[:20]]
            # A weak set of all tasks, say, shows what lives, and does not hold it.
            return sorted(found, key=lambda row: "WeakSet" in row.path or "WeakValue" in row.path)
    except heap.HeapError as error:
        return [Growth(row, rate, f"{row.type} (its path is not known: {error})") for row, rate in grown[:_SHOWN]]


def _youngest(kind: str) -> list[str]:
    """A chain grows without a container: who holds its last link?"""
    named = (item for item in reversed(gc.get_objects()) if f"{type(item).__module__}.{type(item).__name__}" == kind)
    item = next(named, None)
    try:
        return [f"  held by  {heap.path_to(item)}"] if item is not None else []
    except heap.HeapError:
        return []


def _traced() -> Traced:
    """Living allocations since tracing began, by line: number and bytes in one integer, which no census counts."""
    rows = tracemalloc.take_snapshot().statistics("lineno")
    return {f"{row.traceback[0].filename}:{row.traceback[0].lineno}": row.count << _SHIFT | row.size for row in rows}


def _lines(before: Traced, after: Traced, number: int) -> list[str]:
    """Lines whose living allocations grew by at least one in two cycles, those that made most bytes first."""
    found = []
    for line, now in after.items():
        then = before.get(line, 0)
        count, size = (now >> _SHIFT) - (then >> _SHIFT), now % (1 << _SHIFT) - then % (1 << _SHIFT)
        if count * 2 >= number and not any(part in line for part in _OWN):
            found.append((size, f"{line} (+{count / number:.3g}, {size / number:.0f} B)"))
    return [text for _, text in sorted(found, reverse=True)]
