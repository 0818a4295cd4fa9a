"""Who holds what there is, when nothing grows: the places of the heap where the most memory gathers."""

from __future__ import annotations

import msgspec

from flatwater.memory.heap_graph import Graph
from flatwater.memory.heap_model import Node, ObjectUnknown
from flatwater.memory.suspect import NOISE, strip

MIN_BYTES = 1 << 20
"""What keeps less alive is not worth a line."""
CANDIDATES = 300
_FEW = 8  # children that together make most of a node: then the memory lies further down, with them
_CODE = ("module", "type", "function", "code", "builtins.code", "abc.ABCMeta")


class Holder(msgspec.Struct, frozen=True):
    """``path`` as a person reads it, the holder's ``type`` and entries (None: it has none), and the bytes that would be
    freed with it."""

    path: str
    type: str
    size: int | None
    retained_bytes: int


def holders(graph: Graph, *, limit: int = 3, min_bytes: int = MIN_BYTES) -> tuple[Holder, ...]:
    """The largest gathering places that are not below one another, the largest first.

    A node is one when no few of its dominated children make most of its retained size, or when a chain begins with it.
    """
    found: list[tuple[int, Holder]] = []
    chains: set[str] = set()
    for node in graph.largest(CANDIDATES):
        if len(found) == limit or node.retained < min_bytes:
            break
        if node.type in chains or node.type in _CODE:
            continue
        try:
            if _is_chain(graph, node):
                chains.add(node.type)
            elif not _gathers(graph, node):
                continue
            made = _holder(graph, node, {address for address, _ in found})
        except ObjectUnknown:
            continue
        if made is not None:
            found.append((node.address, made))
    return tuple(holder for _, holder in found)


def _gathers(graph: Graph, node: Node) -> bool:
    below = sum(child.retained for child in graph.children(None, limit=_FEW, address=node.address))
    return below <= node.retained / 2


def _is_chain(graph: Graph, node: Node) -> bool:
    """Whether each of its sort holds the next, as in a linked list."""
    [*first] = graph.children(None, limit=1, address=node.address)
    return bool(first) and first[0].type == node.type and first[0].retained >= 0.9 * node.retained


def _holder(graph: Graph, node: Node, above: set[int]) -> Holder | None:
    path = graph.path_to(None, address=node.address)
    text = str(path)
    if path.root.kind == "garbage" or not path.steps or any(mark in text for mark in NOISE):
        return None
    dominators = graph.dominators(None, address=node.address)
    if any(isinstance(up, Node) and up.address in above for up in dominators):
        return None
    return Holder(strip(text), node.type, node.length, node.retained)
