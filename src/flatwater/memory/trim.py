"""Give memory back: a full collection, then malloc's free pages; done when it pays, and measured. Linux."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

from flatwater.bounded.ledger import check_bound
from flatwater.memory import procfs
from flatwater.memory.usage import trim_malloc, usage
from flatwater.quantity import size


@dataclass(frozen=True, slots=True)
class Trimmed:
    """RSS before, after the collection and after the trim, in bytes; objects that were freed; what it took."""

    before: int
    collected_to: int
    after: int
    objects: int
    seconds: float

    @property
    def freed(self) -> int:
        """Bytes given back to the kernel; 0 when the level rose meanwhile."""
        return max(self.before - self.after, 0)


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds the process's private memory, in bytes: which allocator, and whether trimming can return it.

    ``malloc_used`` is in use; ``malloc_free`` is free inside malloc, which a trim returns page by page; ``mapped`` are
    malloc's own mappings (large blocks); ``arenas`` is the rest: pymalloc's arenas of small Python objects, thread
    stacks and mappings of libraries. An arena goes back only when no object in it is left.
    """

    private: int
    malloc_used: int
    malloc_free: int
    mapped: int
    arenas: int

    def __str__(self) -> str:
        rows = {
            "malloc, in use": self.malloc_used + self.mapped,
            "malloc, free (a trim may return it)": self.malloc_free,
            "Python's arenas and other mappings (return when wholly empty)": self.arenas,
        }
        parts = [f"{name} {size(held)}" for name, held in rows.items() if held >= 1 << 20]
        return "; ".join(parts) or "less than 1 MiB"


def trim() -> Trimmed:
    """Collect, then ask glibc to give back what is free. Stops Python for as long as a full collection takes."""
    began = time.perf_counter()
    before = _rss()
    objects = gc.collect()
    collected_to = _rss()
    trim_malloc()
    return Trimmed(before, collected_to, _rss(), objects, time.perf_counter() - began)


def holders() -> Holders:
    """Where this process's private memory lies now; malloc's figures are zeros without glibc 2.33."""
    now = usage()
    private = now.memory.uss if now.memory.uss is not None else now.memory.rss
    malloc = now.malloc
    if malloc is None:
        return Holders(private, 0, 0, 0, private)
    used, free = malloc.used, malloc.free
    return Holders(private, used, free, malloc.mapped, max(private - used - free - malloc.mapped, 0))


class Trimmer:
    """Trims when it pays: the level has risen by ``min_bytes`` since the last trim, and trims take at most ``max_part``
    of the time. A trim that gave back less than a quarter of ``min_bytes`` doubles what the next one waits for, up to
    ``max_bytes``; one that paid sets it back.
    """

    def __init__(
        self,
        *,
        min_bytes: int = 16 << 20,
        max_bytes: int = 1 << 30,
        max_part: float = 0.01,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_bound("min_bytes", min_bytes, where="trim")
        check_bound("max_part", max_part, where="trim")
        self._min_bytes, self._max_bytes, self._max_part = min_bytes, max_bytes, max_part
        self._clock = clock
        self._rise = min_bytes
        self._floor: int | None = None
        self._next = -float("inf")
        self.count = self.freed = 0
        self.seconds = 0.0

    @property
    def threshold(self) -> float:
        """The level in bytes from which a trim is worth a thought: a cheap test for callers in a hurry."""
        return float("inf") if self._floor is None else self._floor + self._rise

    def offer(self, level: int) -> Trimmed | None:
        """Trim if it pays at this level (RSS, bytes); None when it does not."""
        if self._floor is None or level < self._floor:
            self._floor = level
        if level < self._floor + self._rise or self._clock() < self._next:
            return None
        done = trim()
        self.count += 1
        self.freed += done.freed
        self.seconds += done.seconds
        self._floor = done.after
        self._next = self._clock() + done.seconds / self._max_part
        self._rise = self._min_bytes if done.freed >= self._rise / 4 else min(self._rise * 2, self._max_bytes)
        return done


def _rss() -> int:
    return procfs.memory(shares=False).rss
