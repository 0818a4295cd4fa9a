"""The heap of this process: what is on it, who holds it, how much each object keeps alive. Standard library only.

``census()`` and ``containers()`` run here and stop the process for less than a full collection would; ``graph()``
stops it for a fork. No reference count is touched and none of the program's code runs.

Without the C extension (no compiler at installation) ``census()`` and ``containers()`` still give what the collector
lists, saying so in ``Census.missing``; everything else raises :class:`HeapMissing`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
from pathlib import PurePath
from types import ModuleType
from typing import Any, Literal

from flatwater.memory import heap_fallback
from flatwater.memory.heap_graph import Child, Graph, locals_of_frames
from flatwater.memory.heap_model import (
    Census,
    Container,
    Difference,
    Edge,
    Garbage,
    GraphStatistics,
    HeapError,
    HeapFull,
    HeapMissing,
    HolderGrowth,
    Link,
    Neighbours,
    Node,
    ObjectUnknown,
    Root,
    TypeCount,
    TypeGrowth,
    census_diff,
    census_of,
)
from flatwater.memory.heap_path import Path

__all__ = [
    "Census",
    "Container",
    "Difference",
    "Edge",
    "Garbage",
    "Graph",
    "GraphStatistics",
    "HeapError",
    "HeapFull",
    "HeapMissing",
    "HolderGrowth",
    "Link",
    "Neighbours",
    "Node",
    "ObjectUnknown",
    "Path",
    "Root",
    "TypeCount",
    "TypeGrowth",
    "census",
    "census_diff",
    "containers",
    "graph",
    "path_to",
    "retained",
    "snapshot",
]

Scope = Literal["tracked", "containers", "all"]
_SCOPES: tuple[Scope, ...] = ("tracked", "containers", "all")
_PACKAGE = str(PurePath(__file__).parent) + os.sep


def _load() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("flatwater.memory._heap"), ""
    except ImportError as error:
        built_otherwise = "built for" in str(error)
        return None, str(error) if built_otherwise else heap_fallback.MISSING


_heap, _missing = _load()


def _extension() -> ModuleType:
    if _heap is None:
        raise HeapMissing(_missing)
    return _heap


def _run(
    scope: Scope, min_length: int, max_containers: int, max_bytes: int, *, growable: bool = False
) -> dict[str, Any]:
    heap = _extension()
    frames = locals_of_frames(heap)
    number = _SCOPES.index(scope)
    raw = json.loads(heap.census(number, min_length, max_containers, max_bytes, _PACKAGE, frames, growable))
    if "error" in raw:
        raise HeapFull(f"the census needs more than max_bytes={max_bytes:,}: raise it, or choose a narrower scope")
    return raw  # type: ignore[no-any-return]


def census(scope: Scope = "containers", *, max_bytes: int = 512 << 20) -> Census:
    """Count the heap by type: objects and shallow bytes.

    ``tracked`` counts what the collector lists (frozen objects included), ``containers`` also the dicts and tuples that
    it does not list but some object holds, ``all`` also strings, numbers and other atoms. Runs in this process and
    stops it; ``max_bytes`` bounds the memory that the count itself takes (1 % of the heap at most).
    Raises HeapFull when that is not enough.
    """
    if _heap is None:
        return heap_fallback.census()
    frozen = gc.get_freeze_count() if not _heap.INTERNALS else 0
    missing = f"{frozen:,} frozen objects: this Python's public interface does not list them" if frozen else ""
    return census_of(_run(scope, -1, 0, max_bytes)["types"], missing)


def containers(
    min_length: int = 100, *, max_containers: int = 100_000, max_bytes: int = 512 << 20
) -> tuple[Container, ...]:
    """Every list, dict, set, tuple and deque of at least ``min_length`` entries, longest first, tracked or not.

    The addresses stay the same while an object lives, so two calls tell which containers grew. Runs in this process
    and stops it. Raises HeapFull when the count itself needs more than ``max_bytes``.
    """
    if _heap is None:
        return tuple(heap_fallback.containers(min_length, max_containers))
    return tuple(Container(*row) for row in _run("containers", min_length, max_containers, max_bytes)["containers"])


def graph(*, max_bytes: int = 2 << 30, timeout_s: float = 300.0, values: bool = False, nice: int = 19) -> Graph:
    """Take the reference graph of this process; the process stands still for a fork (milliseconds per 100 MB).

    The forked child works at low priority (``nice``), is the first that the out-of-memory killer takes, and gives up
    when its graph passes ``max_bytes`` (about 100 bytes an object) with HeapFull. Blocks until the graph is there, or
    raises HeapError after ``timeout_s``; in asyncio use :func:`snapshot`. ``values`` lets paths show dict keys.
    Raises HeapMissing without the C extension.
    """
    return Graph(Child(_extension(), max_bytes, timeout_s, values, nice))


async def snapshot(
    *, max_bytes: int = 2 << 30, timeout_s: float = 300.0, values: bool = False, nice: int = 19
) -> Graph:
    """:func:`graph` for asyncio: the loop goes on while the child works. Close it, or use it in ``async with``."""
    import asyncio

    return await asyncio.to_thread(graph, max_bytes=max_bytes, timeout_s=timeout_s, values=values, nice=nice)


def path_to(item: object, **settings: Any) -> Path:
    """Who holds the object: see :meth:`Graph.path_to`; ``settings`` are those of :func:`graph`."""
    with graph(**settings) as one:
        return one.path_to(item)


def retained(item: object, **settings: Any) -> int:
    """Bytes that would be freed with the object; ``settings`` are those of :func:`graph`."""
    with graph(**settings) as one:
        return one.retained(item)
