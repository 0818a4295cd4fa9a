"""A round through the whole walker in the standard library alone, for valgrind: heap_exercise.py."""

import asyncio
import functools
import gc
import threading
from collections import OrderedDict, deque
from contextvars import ContextVar
from typing import Any

from flatwater.memory import heap

VARIABLE: ContextVar[object] = ContextVar("VARIABLE")


class Plain:
    def __init__(self, number: int) -> None:
        self.number = number
        self.me = self


class Slotted:
    __slots__ = ("field",)


def suspended() -> Any:
    held = [1, 2]
    yield held


def build() -> dict[str, Any]:
    running = suspended()
    next(running)
    slotted = Slotted()
    slotted.field = [3]
    VARIABLE.set({"in": "context"})
    return {
        "plain": [Plain(n) for n in range(50)],
        "slotted": slotted,
        "generator": running,
        "partial": functools.partial(print, [4]),
        "deque": deque([[n] for n in range(100)]),
        "ordered": OrderedDict(a=[5]),
        "sets": [{n, str(n)} for n in range(20)],
        "tables": [{n: {"inner": (n, str(n))}} for n in range(20)],
        "text": ["é" * 10, b"bytes", bytearray(10), 2**200, 1.5, 1j],
        "closure": lambda: slotted,
    }


def question(kept: dict[str, Any]) -> None:
    for scope in ("tracked", "containers", "all"):
        assert heap.census(scope).count > 1000
    assert heap.containers(5)
    with heap.graph(nice=0, values=True) as graph:
        for item in [*kept.values(), kept["plain"][3], kept["slotted"].field]:
            assert str(graph.path_to(item))
            graph.dominators(item), graph.children(item), graph.holdings(item)
            graph.referrers(item), graph.referents(item)
        graph.garbage(), graph.census(), graph.largest(50), graph.roots()


async def in_a_loop() -> None:
    async with await heap.snapshot(nice=0) as graph:
        assert graph.path_to(asyncio.get_running_loop()).root.kind == "event loop"


def main() -> None:
    kept = build()
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    question(kept)
    gc.freeze()
    question(kept)
    gc.unfreeze()
    asyncio.run(in_a_loop())
    leave.set()
    thread.join()


if __name__ == "__main__":
    main()
