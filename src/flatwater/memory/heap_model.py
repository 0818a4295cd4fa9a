"""What the heap walker tells: rows of a census, nodes, edges, paths. Standard library only.

Sizes are bytes. Addresses are kept for further questions and never shown: reports name an object by :func:`report_id`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import blake2s
from pathlib import PurePath
from typing import Any

_SECRET = os.urandom(16)


class HeapError(Exception):
    """The heap walker could not answer; the message says why and what to do."""


class HeapMissing(HeapError):
    """The C extension is not there: no graph, no paths, no retained sizes."""


class HeapFull(HeapError):
    """The graph did not fit into ``max_bytes``."""


class ObjectUnknown(HeapError, LookupError):
    """The object is not in this graph: it is younger than the snapshot, or not a part of this heap."""


def report_id(address: int) -> str:
    """Eight hex digits for an address: the same all through this process, meaningless outside it."""
    return blake2s(address.to_bytes(8, "little"), key=_SECRET, digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class TypeCount:
    """The objects of one type name: how many, their shallow bytes, and how many the collector tracks."""

    type: str
    count: int
    bytes: int
    tracked: int


@dataclass(frozen=True, slots=True)
class Census:
    """The heap by type, the largest total first. ``missing`` says in words what was not counted ("" when nothing)."""

    types: tuple[TypeCount, ...]
    missing: str = ""

    @property
    def count(self) -> int:
        """All objects counted."""
        return sum(row.count for row in self.types)

    @property
    def bytes(self) -> int:
        """Their shallow bytes together."""
        return sum(row.bytes for row in self.types)

    def __getitem__(self, type_name: str) -> TypeCount:
        """The row of a type, by its full name; zeros when there is no such object."""
        return next((row for row in self.types if row.type == type_name), TypeCount(type_name, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class TypeGrowth:
    """How one type changed between two looks: ``count`` objects and shallow ``bytes`` more (below zero: less)."""

    type: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class HolderGrowth:
    """An object that retains more than before; ``before`` is None for one that was not there, or not large."""

    node: Node
    before: int | None

    @property
    def bytes(self) -> int:
        """How much more."""
        return self.node.retained - (self.before or 0)


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from one graph to a later one: types by bytes, holders by retained bytes, the largest first."""

    types: tuple[TypeGrowth, ...]
    holders: tuple[HolderGrowth, ...]


def census_diff(before: Census, after: Census) -> tuple[TypeGrowth, ...]:
    """The types whose number or bytes changed, those that grew most first."""
    old = {row.type: row for row in before.types}
    new = {row.type: row for row in after.types}
    rows = []
    for name in old.keys() | new.keys():
        was, now = (found.get(name) or TypeCount(name, 0, 0, 0) for found in (old, new))
        rows.append(TypeGrowth(name, now.count - was.count, now.bytes - was.bytes))
    return tuple(sorted((row for row in rows if row.count or row.bytes), key=lambda row: (-row.bytes, row.type)))


def census_of(rows: list[list[Any]], missing: str = "") -> Census:
    """Rows (type, count, bytes, tracked), with rows of one name added up: classes may share a name."""
    merged: dict[str, list[int]] = {}
    for name, *figures in rows:
        into = merged.setdefault(name, [0, 0, 0])
        for at, figure in enumerate(figures):
            into[at] += figure
    counts = (TypeCount(name, *figures) for name, figures in merged.items())
    return Census(tuple(sorted(counts, key=lambda row: (-row.bytes, row.type))), missing)


@dataclass(frozen=True, slots=True)
class Container:
    """A list, dict, set, tuple or deque: its type, its number of entries and its own bytes (not the entries')."""

    address: int = field(repr=False)
    type: str
    length: int
    bytes: int

    @property
    def id(self) -> str:
        """A name for reports."""
        return report_id(self.address)


@dataclass(frozen=True, slots=True)
class Root:
    """Where a path begins: ``kind`` is module, frame, thread, event loop, interpreter, value stack, C or garbage.

    A frame has its function's name, file and line; ``thread`` is the native thread id, 0 where there is none.
    """

    kind: str
    name: str = ""
    file: str = ""
    line: int = 0
    thread: int = 0
    retained: int = 0

    def __str__(self) -> str:
        if self.kind in ("frame", "value stack"):
            return f"{self.name}() ({PurePath(self.file).name}:{self.line})"
        return {"C": "C code", "garbage": "cyclic garbage"}.get(self.kind, self.kind)

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        place = {"name": self.name, "file": self.file, "line": self.line} if self.name else {}
        return {"root": self.kind, **place, "thread": self.thread, "retained_bytes": self.retained}


@dataclass(frozen=True, slots=True)
class Node:
    """An object: ``bytes`` are its own, ``retained`` what would be freed with it, ``length`` its entries.

    ``label`` is the name of a module, class, function or coroutine; ``file`` and ``line`` where that code is.
    """

    address: int = field(repr=False)
    type: str
    bytes: int
    retained: int
    length: int | None = None
    label: str = ""
    file: str = ""
    line: int = 0

    @property
    def id(self) -> str:
        """A name for reports."""
        return report_id(self.address)

    @property
    def short_type(self) -> str:
        """The type's last name."""
        return self.type.rpartition(".")[2]

    def to_json(self) -> dict[str, Any]:
        """For reports: no address, no value."""
        row: dict[str, Any] = {"id": self.id, "type": self.type, "bytes": self.bytes, "retained_bytes": self.retained}
        if self.length is not None:
            row["length"] = self.length
        if self.label:
            row["label"] = self.label
        if self.file:
            row.update(file=self.file, line=self.line)
        return row


@dataclass(frozen=True, slots=True)
class Edge:
    """How one object holds the next.

    ``kind``: module, local, attribute, namespace (an object's ``__dict__``), key, index, element (of a set), closure,
    cell, contextvar, or held (``name`` says how). ``value`` is a key's text, only when values were asked for.
    """

    kind: str
    name: str = ""
    index: int = -1
    key_type: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An edge and the node at its other end."""

    edge: Edge
    node: Node | Root


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who refers to an object, or what it refers to: ``links`` are the first of ``count``."""

    count: int
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Garbage:
    """Cyclic garbage: unreachable, and not yet collected. ``types`` counts it; nothing is collected by asking."""

    bytes: int
    types: Census

    @property
    def count(self) -> int:
        """Objects."""
        return self.types.count


@dataclass(frozen=True, slots=True)
class GraphStatistics:
    """Figures of one graph: what was walked, what it cost (seconds, bytes) and how long the process stood still."""

    objects: int
    tracked: int
    references: int
    bytes: int
    garbage_bytes: int
    graph_bytes: int
    pause_s: float
    walk_s: float
    reach_s: float
    dominate_s: float


def root_of(raw: dict[str, Any]) -> Root:
    """A root from the walker's JSON."""
    return Root(raw["root"], raw["name"], raw["file"], raw["line"], raw["thread"], raw["retained"])


def node_of(raw: dict[str, Any]) -> Node | Root:
    """A node, or a root, from the walker's JSON."""
    return root_of(raw) if "root" in raw else Node(**raw)


def link_of(raw: dict[str, Any]) -> Link:
    """A link from the walker's JSON."""
    return Link(Edge(**raw["edge"]), node_of(raw["node"]))
