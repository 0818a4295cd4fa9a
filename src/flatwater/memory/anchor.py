"""Growth that no container shows: which lasting object keeps more and more alive.

A chain grows at its end, a tree at its leaves, and ``self.rows = self.rows + [row]`` makes a new list each time:
nothing that lives on becomes longer. But between two snapshots the *anchor* is known by its retained size: the deepest
object that was there before and keeps most of the growth alive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flatwater.memory.heap_graph import Graph
from flatwater.memory.heap_model import Node, ObjectUnknown, Root, TypeGrowth
from flatwater.memory.heap_path import Path
from flatwater.memory.suspect import Items, Suspect

MIN_SHARE = 0.5
"""Of the growth of everything reachable, what an anchor must explain."""

_Key = int | tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class Outline:
    """What retained most at one moment: bytes and type by object or root, and the bytes of everything reachable."""

    at: float
    bytes: int
    held: dict[_Key, tuple[int, str]]
    rows: tuple[tuple[Node, int, Root | None], ...]


@dataclass(frozen=True, slots=True)
class Anchor:
    """``node`` is what the anchor holds and what grows, with its path; ``gained`` bytes in ``seconds``.

    ``types`` counts what the node keeps alive.
    """

    node: Node
    path: Path
    gained: int
    seconds: float
    types: Mapping[str, int]


def outline(graph: Graph, at: float) -> Outline:
    """The graph's outline at ``at`` seconds."""
    figures, rows = graph.statistics(), graph.outline()
    held: dict[_Key, tuple[int, str]] = {node.address: (node.retained, node.type) for node, _, _ in rows}
    held |= {_key(root): (root.retained, "") for root in graph.roots()}
    return Outline(at, figures.bytes - figures.garbage_bytes, held, rows)


def find(graph: Graph, before: Outline, after: Outline) -> Anchor | None:
    """The anchor of the growth between two outlines, of which ``after`` is this graph's; None when there is none."""
    total = after.bytes - before.bytes
    grown = {
        key: retained - before.held[key][0]
        for key, (retained, kind) in after.held.items()
        if key in before.held and before.held[key][1] == kind
    }
    mine = [key for key, gain in grown.items() if gain >= MIN_SHARE * total > 0]
    if not mine:
        return None
    deepest = min(mine, key=lambda key: after.held[key][0])
    below = [
        (node.retained - before.held.get(node.address, (0, ""))[0], node)
        for node, above, root in after.rows
        if (above or (_key(root) if root else 0)) == deepest
    ]
    gained, node = max(below, key=lambda row: row[0], default=(0, None))
    if node is None or gained < MIN_SHARE * grown[deepest]:  # it spreads out: the anchor itself is the answer
        node = next((node for node, _, _ in after.rows if node.address == deepest), None)
    if node is None:
        return None
    with contextlib.suppress(ObjectUnknown):
        path = graph.path_to(None, address=node.address)
        types = {row.type: row.count for row in graph.holdings(None, address=node.address).types}
        return Anchor(node, path, grown[deepest], after.at - before.at, types)
    return None


def suspect(anchor: Anchor, grown: Sequence[TypeGrowth], seconds: float) -> Suspect:
    """The anchor as a suspect: what becomes more below it is told from the census's growth in ``seconds``."""
    inside = [row for row in grown if row.count > 0 and anchor.types.get(row.type)]
    kind, more = (inside[0].type, inside[0].count / seconds) if inside else (anchor.node.type, 0.0)
    per_s = anchor.gained / anchor.seconds
    items = Items(kind, anchor.types.get(kind, 0), anchor.node.retained)
    return Suspect(
        what="type",
        type=kind,
        length=items.count,
        per_s=more,
        low=more,
        high=more,
        bytes_per_s=per_s,
        retained=anchor.node.retained,
        path=anchor.path,
        accumulation=len(anchor.path.steps) - 1,
        items=items,
        addresses=tuple(node.address for node in anchor.path.nodes[-2:]),
    )


def _key(root: Root) -> tuple[str, str, str, int]:
    """A root without its line, which moves while it runs."""
    return root.kind, root.name, root.file, root.thread
