"""The memory figures of this process in one look. Linux, standard library only. Sizes are bytes."""

from __future__ import annotations

import ctypes
import gc
import sys
from dataclasses import dataclass
from functools import cache

from flatwater.memory import procfs


@dataclass(frozen=True, slots=True)
class Malloc:
    """glibc's ``mallinfo2``: heap memory from the kernel, in use, free inside, and free at the top of the main heap.

    ``free`` memory is resident but unused; ``malloc_trim`` can return part of it, ``top`` at once.
    """

    heap: int
    mapped: int
    used: int
    free: int
    top: int


@dataclass(frozen=True, slots=True)
class Collector:
    """Python's cyclic collector: whether it runs, objects since the last collections, what it did so far."""

    enabled: bool
    counts: tuple[int, ...]
    thresholds: tuple[int, ...]
    frozen: int
    collections: tuple[int, ...]
    collected: int
    uncollectable: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process uses. ``blocks`` are pymalloc's (every small object is one); ``tasks`` asyncio's unfinished.

    ``malloc`` is None without glibc 2.33, ``cgroup`` without control groups, ``tasks`` when asyncio does not tell.
    """

    memory: procfs.ProcessMemory
    blocks: int
    malloc: Malloc | None
    collector: Collector
    tasks: int | None
    cgroup: procfs.Cgroup | None


def usage(*, shares: bool = True) -> Usage:
    """All figures now. ``shares=False`` leaves out PSS, USS and swap, which take about 1 ms per 100 MB."""
    return Usage(
        procfs.memory(shares=shares),
        sys.getallocatedblocks(),
        malloc(),
        _collector(),
        _tasks(),
        procfs.cgroup(),
    )


_MALLINFO2 = "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO2)


@cache
def _library() -> ctypes.CDLL | None:
    """glibc, once: each CDLL makes classes, which are cyclic garbage afterwards."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = _Mallinfo2
    return library


def trim_malloc() -> None:
    """Ask glibc to give the kernel what is free inside malloc; nothing happens with another C library."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def malloc() -> Malloc | None:
    """glibc's own figures; None where there is no ``mallinfo2``."""
    library = _library()
    if library is None:
        return None
    info = library.mallinfo2()
    return Malloc(info.arena, info.hblkhd, info.uordblks, info.fordblks, info.keepcost)


def _collector() -> Collector:
    statistics = gc.get_stats()
    return Collector(
        gc.isenabled(),
        gc.get_count(),
        gc.get_threshold(),
        gc.get_freeze_count(),
        tuple(generation["collections"] for generation in statistics),
        sum(generation["collected"] for generation in statistics),
        sum(generation["uncollectable"] for generation in statistics),
    )


def _tasks() -> int | None:
    """Unfinished tasks of all loops. asyncio tells only those of one loop in public, so its own sets are asked."""
    tasks = sys.modules.get("asyncio.tasks")
    if tasks is None:
        return 0
    names = ("_scheduled_tasks", "_eager_tasks") if hasattr(tasks, "_scheduled_tasks") else ("_all_tasks",)
    known = [found for name in names if (found := getattr(tasks, name, None)) is not None]
    for _ in range(10):  # another thread may add to a set while it is copied
        try:
            return sum(not task.done() for found in known for task in tuple(found)) if known else None
        except RuntimeError:
            continue
    return None
