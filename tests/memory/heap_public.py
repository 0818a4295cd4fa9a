"""A look at a heap with a walker that was built elsewhere: ``python heap_public.py FOLDER`` prints JSON.

FOLDER has a ``_heap`` for the Python that runs this; standard library only.
"""

from __future__ import annotations

import json
import sys

import flatwater.memory

flatwater.memory.__path__.insert(0, sys.argv[1])

from flatwater.memory import heap  # noqa: E402


class Order:
    def __init__(self, number: int) -> None:
        self.number, self.parts = number, {"first": number}


class Desk:
    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending = {number: Order(number) for number in range(1000)}


desk = Desk()


def walk() -> dict[str, object]:
    mine = [Order(number) for number in range(50)]
    census = heap.census("all")
    longest = {row.address: row.length for row in heap.containers(500)}
    with heap.graph() as graph:
        path = graph.path_to(desk.pending)
        local = graph.path_to(mine)
        return {
            "file": heap._extension().__file__,
            "internals": heap._extension().INTERNALS,
            "missing": census.missing,
            "orders": census[f"{__name__}.Order"].count,
            "pending": longest.get(id(desk.pending)),
            "retained": graph.retained(desk.pending),
            "path": str(path),
            "local": str(local),
        }


json.dump(walk(), sys.stdout)
