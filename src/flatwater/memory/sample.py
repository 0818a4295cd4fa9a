"""One look at the heap for whoever watches it grow: types and containers in one walk. Standard library only."""

from __future__ import annotations

import time
import weakref
from typing import Any

from flatwater.memory import heap, heap_fallback
from flatwater.memory.item import growable, length
from flatwater.memory.maker import take

_held: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()  # by session: it ends with that


def sample(
    session: Any, *, min_length: int = 4, max_containers: int = 20_000, max_bytes: int = 512 << 20
) -> dict[str, Any]:
    """A command: rows of types (type, count, bytes, tracked) and of containers (address, type, length, bytes).

    Tuples are left out. ``found`` is how many containers there are, of which the longest ``max_containers`` are given;
    ``pause_s`` is how long the process stood still for it at most, ``cpu_s`` what it cost, in seconds.
    """
    begun, cpu = time.perf_counter(), time.thread_time()
    if heap._heap is None:
        rows = heap_fallback.containers(min_length, max_containers)
        types = [[row.type, row.count, row.bytes, row.tracked] for row in heap_fallback.census().types]
        found = [[row.address, row.type, row.length, row.bytes] for row in rows]
        raw: dict[str, Any] = {"types": types, "containers": found, "found": len(found)}
    else:
        raw = heap._run("containers", min_length, max_containers, max_bytes, growable=True)
    return {
        "types": raw["types"],
        "containers": raw["containers"],
        "found": raw["found"],
        "pause_s": time.perf_counter() - begun,
        "cpu_s": time.thread_time() - cpu,
    }


def hold(session: Any, *, addresses: list[int]) -> list[int | None]:
    """A command: hold the containers at these addresses, in place of the former; their lengths, None where none lives.

    For heaps that take long to walk: :func:`lengths` then costs nothing. They are let go by holding none, or with the
    session. At most 64.
    """
    taken, _ = take(addresses) if addresses else ([], [])
    found = _held[session] = [item if growable(item) else None for item in taken]
    del taken
    if not addresses:
        del _held[session]
    return [None if item is None else length(item) for item in found]


def lengths(session: Any) -> list[int | None]:
    """A command: the lengths of what is held, in the order of the addresses."""
    return [None if item is None else length(item) for item in _held.get(session, [])]
