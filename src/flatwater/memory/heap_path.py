"""A path from a root to an object, and how a person reads it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from flatwater.memory.heap_model import Edge, Link, Node, Root

ARROW = " → "
_RUNNING = ("generator", "coroutine", "async_generator", "frame")


@dataclass(frozen=True, slots=True)
class Path:
    """The shortest path from a named root to an object. Of a very long path the middle is ``skipped`` steps."""

    root: Root
    steps: tuple[Link, ...]
    skipped: int = 0

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The objects on the way, the last one being the object itself."""
        return tuple(step.node for step in self.steps if isinstance(step.node, Node))

    def __str__(self) -> str:
        """For example ``gateway.app → Gateway.background_tasks (set, 10,000 entries)``."""
        return _Writer(self).text()

    def to_json(self) -> dict[str, Any]:
        """For reports: names, types and sizes, no address, no value."""
        steps = [{"edge": _edge_json(step.edge), "node": step.node.to_json()} for step in self.steps]
        return {"text": str(self), "root": self.root.to_json(), "skipped": self.skipped, "steps": steps}


def _edge_json(edge: Edge) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": edge.kind}
    if edge.name:
        row["name"] = edge.name
    if edge.index >= 0:
        row["index"] = edge.index
    if edge.key_type:
        row["key_type"] = edge.key_type
    return row


def _transparent(step: Link) -> bool:
    """A __dict__, a function's cells and a context's mapping speak for their owner."""
    edge, node = step.edge, step.node
    return (
        edge.kind in ("namespace", "cell")
        or edge.name == "__closure__"
        or (isinstance(node, Node) and node.type.startswith("hamt"))
    )


def _place(file: str, line: int) -> str:
    return f" ({PurePath(file).name}:{line})" if file else ""


class _Writer:
    """Joins steps into expressions: what belongs to one object stays in one segment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._segments: list[str] = []
        self._dangling = ""

    def text(self) -> str:
        holder: Node | None = None
        for at, step in enumerate(self._path.steps):
            if self._path.skipped and at == len(self._path.steps) // 2:
                self._flush(f"… {self._path.skipped:,} more …")
            assert isinstance(step.node, Node)  # a root is never inside a path
            hidden = at > 0 and _transparent(step) and step is not self._path.steps[-1]
            if not hidden:
                self._step(step.edge, holder)
            if not hidden or step.edge.kind == "cell":
                holder = step.node
        self._flush()
        return ARROW.join(self._segments) + self._ending()

    def _flush(self, extra: str = "") -> None:
        self._segments += [part for part in (self._dangling, extra) if part]
        self._dangling = ""

    def _step(self, edge: Edge, holder: Node | None) -> None:
        owner = self._owner(holder)
        if owner:
            self._flush()
        text = _edge_text(edge)
        if holder is None:
            self._dangling = self._beginning(edge)
        else:
            self._dangling = (owner or self._dangling) + text

    def _beginning(self, edge: Edge) -> str:
        root = self._path.root
        if edge.kind == "local":
            return f"{root.name}() local {edge.name}{_place(root.file, root.line)}"
        if root.kind == "module":
            return edge.name
        return str(root) if root.kind in ("C", "garbage") else f"{root}: {edge.name}"

    def _owner(self, holder: Node | None) -> str:
        """The name that a new segment begins with, or "" to go on with the expression so far."""
        if holder is None or holder.type == "module" or holder.length is not None or holder.type in ("cell", "tuple"):
            return ""
        if holder.type in _RUNNING:
            return f"{holder.label or holder.short_type}()"
        if holder.label:
            return "" if self._dangling.endswith(holder.label.rpartition(".")[2]) else holder.label
        return holder.short_type

    def _ending(self) -> str:
        last = self._path.nodes[-1]
        entries = f", {last.length:,} entries" if last.length is not None else ""
        return f" ({last.short_type}{entries})"


def _edge_text(edge: Edge) -> str:
    if edge.kind in ("attribute", "namespace"):
        return f".{edge.name}"
    if edge.kind == "key":
        return f"[{edge.value or edge.name!r}]" if edge.value or edge.name else f"[{edge.key_type}]"
    if edge.kind == "index":
        return f"[{edge.index}]"
    if edge.kind in ("local", "closure", "contextvar"):
        return f" {edge.kind} {edge.name}"
    if edge.kind == "element":
        return "{…}"
    return "" if edge.kind == "cell" else f" ⇒ ({edge.name or edge.kind})"
