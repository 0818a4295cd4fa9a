"""What the live views show: a tree of processes, the types and the containers of one process, each with its history.

No screen is known here: ``flatwater top`` and the server's page draw what these classes give. Each keeps a bounded
number of rows and points.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flatwater.memory import procfs, scan
from flatwater.memory.selector import Selector
from flatwater.memory.slope import Slope, slope
from flatwater.memory.target import Target, census, containers

POINTS = 60
"""How many looks back a history goes."""
SHARES_S = 10.0
"""How often PSS is read: the kernel walks the page table for it, about 1 ms per 100 MB."""


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process: ``depth`` in the tree, bytes, percent of one core, its RSS so far, and where that leads.

    ``limit`` is the tightest cgroup's, else the machine's memory; ``reach_s`` seconds until RSS comes there at this
    slope, None when it does not grow for sure.
    """

    pid: int
    depth: int
    command: str
    rss: int
    pss: int | None
    cpu: float
    threads: int
    history: tuple[int, ...]
    slope: Slope | None
    limit: int
    reach_s: float | None


@dataclass(slots=True)
class _Seen:
    points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=POINTS * 10))
    ticks: int = 0
    at: float = 0.0
    pss: int | None = None
    pss_at: float = float("-inf")
    limit: int = 0


class ProcessWatch:
    """The chosen processes, look by look; call :meth:`look` about once a second. At most ``max_processes`` rows."""

    def __init__(self, selector: Selector, *, max_processes: int = 500) -> None:
        self._selector = selector
        self._max_processes = max_processes
        self._scanner = scan.Scanner()
        self._seen: dict[tuple[int, int], _Seen] = {}

    def look(self) -> list[ProcessRow]:
        """The living processes in the order of the tree, parents before children."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        table = self._scanner.look(now)
        chosen = {pid for pid in self._selector.choose(table)[1] if table[pid].alive}
        rows = [self._row(table[pid], depth, now) for pid, depth in _tree(table, chosen)[: self._max_processes]]
        living = {table[pid].key for pid in chosen}
        self._seen = {key: seen for key, seen in self._seen.items() if key in living}
        return rows

    def _row(self, process: scan.Process, depth: int, now: float) -> ProcessRow:
        seen = self._seen.setdefault(process.key, _Seen())
        ticks = process.user + process.system
        cpu = 100 * (ticks - seen.ticks) / scan.TICKS_PER_S / (now - seen.at) if seen.at and now > seen.at else 0.0
        seen.ticks, seen.at = ticks, now
        seen.points.append((now, process.rss))
        if now - seen.pss_at >= SHARES_S:
            seen.pss, seen.limit, seen.pss_at = *_shares(process.pid), now
        found = slope([(at, float(rss)) for at, rss in seen.points])
        history = tuple(rss for _, rss in seen.points)[-POINTS:]
        reach = found.reaches(seen.limit, process.rss) if found and seen.limit else None
        command = process.command or f"[{process.name}]"
        return ProcessRow(
            process.pid, depth, command, process.rss, seen.pss, cpu, process.threads, history, found, seen.limit, reach
        )


def _shares(pid: int) -> tuple[int | None, int]:
    """PSS where it may be read, and the limit."""
    try:
        memory = procfs.memory(pid)
    except (OSError, ValueError):
        return None, 0
    group = procfs.cgroup(pid)
    return memory.pss, min(memory.total, group.limit) if group and group.limit else memory.total


def _tree(table: scan.Table, chosen: set[int]) -> list[tuple[int, int]]:
    """Pids with their depth: children below their parents, oldest first."""
    below: dict[int, list[int]] = {}
    for pid in chosen:
        below.setdefault(table[pid].ppid if table[pid].ppid in chosen else 0, []).append(pid)
    rows: list[tuple[int, int]] = []
    stack = [(pid, 0) for pid in sorted(below.get(0, ()), key=lambda pid: table[pid].start, reverse=True)]
    while stack:
        pid, depth = stack.pop()
        rows.append((pid, depth))
        stack += [(child, depth + 1) for child in sorted(below.get(pid, ()), key=lambda one: -table[one].start)]
    return rows


@dataclass(frozen=True, slots=True)
class Series:
    """The history of a type (number of its objects) or of a container (its entries).

    ``address`` is 0 for a type. ``bytes`` are shallow, now. ``grown`` is the change since the first look of it.
    """

    name: str
    address: int
    bytes: int
    history: tuple[int, ...]

    @property
    def now(self) -> int:
        return self.history[-1]

    @property
    def grown(self) -> int:
        return self.history[-1] - self.history[0]


class HeapWatch:
    """Types and containers of a target, look by look (Dozer's page: sparkline per type, floor, filter).

    A look stops the target for less than a full collection. ``cost_s`` is what the last one took: wait at least twenty
    times as long before the next, so that the target runs 95 % of the time. ``max_rows`` of each are remembered.
    """

    def __init__(self, target: Target, *, max_rows: int = 5000, min_length: int = 100) -> None:
        self._target = target
        self._max_rows = max_rows
        self._min_length = min_length
        self._types: dict[str, deque[int]] = {}
        self._containers: dict[int, deque[int]] = {}
        self._bytes: dict[str | int, int] = {}
        self._names: dict[int, str] = {}
        self.cost_s = 0.0
        self.looks = 0

    def look(self) -> None:
        """Read the target once. Raises what the target raises."""
        begun = time.monotonic()
        types = sorted(census(self._target).types, key=lambda row: -row.count)[: self._max_rows]
        lists = containers(self._target, min_length=self._min_length, max_containers=self._max_rows)
        self.cost_s = time.monotonic() - begun
        self.looks += 1
        self._bytes = {**{row.type: row.bytes for row in types}, **{row.address: row.bytes for row in lists}}
        self._names = {row.address: row.type for row in lists}
        self._types = _extended(self._types, ((row.type, row.count) for row in types))
        self._containers = _extended(self._containers, ((row.address, row.length) for row in lists))

    def types(self, *, floor: int = 0, search: str = "") -> list[Series]:
        """Types of at least ``floor`` objects whose name holds ``search``, those that grew most first."""
        wanted = search.lower()
        found = (Series(name, 0, self._bytes[name], tuple(seen)) for name, seen in self._types.items())
        return _ranked(row for row in found if row.now >= floor and wanted in row.name.lower())

    def containers(self, *, floor: int = 0) -> list[Series]:
        """Containers of at least ``floor`` entries, those that grew most first."""
        found = (
            Series(self._names[address], address, self._bytes[address], tuple(seen))
            for address, seen in self._containers.items()
        )
        return _ranked(row for row in found if row.now >= floor)


def _extended(old: dict[Any, deque[int]], rows: Iterable[tuple[Any, int]]) -> dict[Any, deque[int]]:
    new: dict[Any, deque[int]] = {}
    for key, value in rows:
        seen = new[key] = old.get(key) or deque(maxlen=POINTS)
        seen.append(value)
    return new


def _ranked(rows: Iterable[Series]) -> list[Series]:
    return sorted(rows, key=lambda row: (-row.grown, -row.bytes))


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 20) -> str:
    """The last ``width`` values as a row of bars between their least and their greatest; flat stays low."""
    shown = list(values)[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown)
