"""The memory of the server, as its instruments show it: types, names, sizes and counts, never a value."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct


class Row(Struct, frozen=True):
    """A type or a container: objects or entries now, their change since the first look, shallow bytes, and the past."""

    type: str
    now: int
    grown: int
    bytes: int
    history: list[int]
    id: str = ""


class Heap(Struct, frozen=True):
    """What grew most comes first. ``cost_s``: how long the last look stopped the server."""

    looks: int
    cost_s: float
    types: list[Row]
    containers: list[Row]


class HeapQuery(Struct, frozen=True):
    """``floor``: least number of objects or entries; ``search``: part of a type's name."""

    floor: Annotated[int, Meta(ge=0, le=10**12)] = 0
    search: Annotated[str, Meta(max_length=200)] = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class Graph(Struct, frozen=True):
    """Figures of a graph, and the objects that retain most: from there every object can be reached."""

    statistics: dict[str, float]
    largest: list[dict[str, Any]]


class Neighbour(Struct, frozen=True):
    """How one object holds another, and the other one (or a root)."""

    how: str
    node: dict[str, Any]


class Object(Struct, frozen=True):
    """An object, the way to it from a root, and its neighbours: the first of ``held_count`` and ``holds_count``."""

    node: dict[str, Any]
    path: dict[str, Any]
    held_count: int
    held_by: list[Neighbour]
    holds_count: int
    holds: list[Neighbour]


class Figures(Struct, frozen=True):
    """Memory, malloc, collector, tasks, control group, and the connection pools of the process."""

    usage: dict[str, Any]
    pools: list[dict[str, Any]]


class Collected(Struct, frozen=True):
    freed: int
    uncollectable: int


class Trimmed(Struct, frozen=True):
    """RSS in bytes."""

    before: int
    after: int
