"""The way from a root to what grows, as SVG: a box for each object, an arrow with the edge's name between them.

The colours are the page's variables (see :mod:`flatwater.memory.report_html`) with light ones to fall back to. The same
boxes as a graph for Graphviz: :func:`dot`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from itertools import groupby

import msgspec

from flatwater.memory.heap_model import Edge, Node
from flatwater.memory.suspect import Suspect
from flatwater.quantity import size

WIDTH, BOX, HEIGHT, GAP = 860, 620, 46, 40
MAX_BOXES = 16
_BAR = 150
_FONT = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"


class Box(msgspec.Struct, frozen=True):
    """One object of the drawing: the edge that leads to it, its name, what stands below, and what it retains."""

    edge: str
    title: str
    below: str
    retained: int | None
    role: str = ""


def svg(suspects: Sequence[Suspect]) -> str:
    """The drawings of these suspects below one another, as a file of its own; "" when none has a path."""
    parts, top = [], 0
    for suspect in suspects:
        if boxes := _boxes(suspect):
            title = f'<text x="4" y="{top + 22}" font-weight="700">{escape(_cut(suspect.owner, 100))}</text>'
            inner = draw(suspect).removeprefix("<svg")
            parts.append(f'{title}<svg y="{top + HEIGHT}" height="{_tall(boxes)}"{inner}')
            top += HEIGHT + _tall(boxes) + GAP
    if not parts:
        return ""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'font-family="{_FONT}" font-size="13"><rect width="100%" height="100%" fill="#ffffff"/>'
    )
    # Few viewers but browsers know variables.
    return re.sub(r"var\(--[a-z-]+, (#[0-9a-f]+)\)", r"\1", f"{head}{''.join(parts)}</svg>\n")


def dot(suspects: Sequence[Suspect]) -> str:
    """The same as a graph in Graphviz's language, a cluster for each suspect; "" when none has a path."""
    parts = []
    for number, suspect in enumerate(suspects):
        if boxes := _boxes(suspect):
            lines = [f"  subgraph cluster_{number} {{", f"    label={json.dumps(suspect.owner, ensure_ascii=False)};"]
            lines += [f"    {line}" for at, box in enumerate(boxes) for line in _dot(box, f"n{number}_", at)]
            parts += [*lines, "  }"]
    if not parts:
        return ""
    head = ["digraph retaining {", '  node [shape=box, style=rounded, fontname="monospace"];', "  labeljust=l;"]
    return "\n".join([*head, *parts, "}"]) + "\n"


def _dot(box: Box, prefix: str, at: int) -> list[str]:
    """The node of a box, and the edge that leads to it."""
    held = [] if box.retained is None else [f"retains {size(box.retained)}"]
    text = "\n".join(part for part in (box.title, box.below, *held) if part)
    colour = {"suspect": ", color=red, penwidth=2", "gather": ", color=orange, penwidth=2"}.get(box.role, "")
    dashed = ', style="rounded,dashed"' if box.role in ("items", "left out") else ""
    found = [f"{prefix}{at} [label={json.dumps(text, ensure_ascii=False)}{colour}{dashed}];"]
    if at:
        found.append(f"{prefix}{at - 1} -> {prefix}{at} [label={json.dumps(box.edge, ensure_ascii=False)}];")
    return found


def _boxes(suspect: Suspect) -> list[Box]:
    return [] if suspect.path is None else shortened(folded(rows(suspect), suspect.path.skipped))


def _tall(boxes: Sequence[Box]) -> int:
    return len(boxes) * (HEIGHT + GAP) - GAP + 8


def draw(suspect: Suspect) -> str:
    """The drawing, or "" without a path."""
    boxes = _boxes(suspect)
    if not boxes:
        return ""
    most = max((box.retained or 0 for box in boxes), default=0) or 1
    tall = _tall(boxes)
    parts = [_box(box, at, most) for at, box in enumerate(boxes)]
    head = (
        f'<svg viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" role="img" aria-label="{escape(suspect.owner)}" '
        f'font-family="{_FONT}" font-size="13">'
    )
    return head + "".join(parts) + "</svg>"


def rows(suspect: Suspect) -> list[Box]:
    """The path's objects from the root on; a ``__dict__`` speaks for its owner and has no box."""
    assert suspect.path is not None
    root = suspect.path.root
    boxes = [] if root.kind == "module" else [Box("", str(root), "root", root.retained or None, "root")]
    pending = ""
    last = len(suspect.path.steps) - 1
    for at, step in enumerate(suspect.path.steps):
        node = step.node
        if not isinstance(node, Node):
            continue
        role = "suspect" if at == last else "gather" if at == suspect.accumulation else ""
        if step.edge.kind in ("namespace", "cell") and not role:
            pending = pending or ("" if step.edge.kind == "namespace" else edge_text(step.edge))
            continue
        entries = f", {node.length:,} entries" if node.length is not None else ""
        title = f"{node.short_type} {node.label}" if node.label and node.label != node.short_type else node.short_type
        below = entries[2:] if entries and title == node.type else f"{node.type}{entries}"
        boxes.append(Box(pending or edge_text(step.edge), title, below, node.retained, role))
        pending = ""
    items = suspect.items
    if items.type and suspect.what == "container":
        below = f"items that grow by {suspect.per_s:,.3g}/s"
        boxes.append(Box("holds", f"{items.count:,} × {items.type.rpartition('.')[2]}", below, items.retained, "items"))
    return boxes


def folded(boxes: list[Box], skipped: int = 0) -> list[Box]:
    """A chain of like objects as its first one and a box that counts the others; ``skipped`` were in its middle."""
    kept: list[Box] = []
    for _, run in groupby(boxes, key=lambda box: (box.edge, box.title, box.role)):
        chain = list(run)
        if len(chain) < 4:
            kept += chain
            continue
        more = len(chain) - 1 + skipped
        below = f"{chain[0].title}, each held by the one before"
        kept += [chain[0], Box(chain[0].edge, f"{more:,} more", below, chain[-1].retained, "left out")]
        skipped = 0
    return kept


def shortened(boxes: list[Box], most: int = MAX_BOXES) -> list[Box]:
    """At most ``most`` boxes: of a longer path the middle is one box that says how many it stands for."""
    if len(boxes) <= most:
        return boxes
    head, tail = most // 3, most - most // 3 - 1
    left = len(boxes) - head - tail
    return [*boxes[:head], Box("", f"… {left} more objects …", "", None, "left out"), *boxes[-tail:]]


def edge_text(edge: Edge) -> str:
    """An edge's name: ``.tasks``, ``['key']``, ``local batch``."""
    if edge.kind in ("attribute", "namespace"):
        return f".{edge.name}"
    if edge.kind == "key":
        return f"[{edge.value or edge.name or edge.key_type}]"
    if edge.kind == "index":
        return f"[{edge.index}]"
    if edge.kind == "element":
        return "{…}"
    return f"{edge.kind} {edge.name}".strip()


_STROKES = {
    "suspect": ("var(--accent, #b3261e)", "var(--accent-fill, #fdecea)", "grows"),
    "gather": ("var(--gather, #7a4a00)", "var(--gather-fill, #fff3dc)", "gathers here"),
}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _box(box: Box, at: int, most: int) -> str:
    top = 4 + at * (HEIGHT + GAP)
    stroke, fill, mark = _STROKES.get(box.role, ("var(--line, #dde3e9)", "var(--paper, #f7f8fa)", ""))
    dashes = ' stroke-dasharray="5 4"' if box.role in ("items", "left out") else ""
    parts = []
    if at:
        parts.append(_arrow(box.edge, top))
    wide = 2 if mark else 1.2
    parts.append(
        f'<rect x="4" y="{top}" width="{BOX}" height="{HEIGHT}" rx="8" fill="{fill}" stroke="{stroke}"'
        f' stroke-width="{wide}"{dashes}/>'
        f'<text x="18" y="{top + 19}" font-weight="600" fill="var(--ink, #1c232b)">{escape(_cut(box.title, 62))}</text>'
        f'<text x="18" y="{top + 36}" font-size="11" fill="var(--soft, #5a6672)">{escape(_cut(box.below, 80))}</text>'
    )
    if mark:
        parts.append(
            f'<text x="{BOX - 10}" y="{top + 19}" text-anchor="end" font-size="12"'
            f' font-weight="700" fill="{stroke}">{mark}</text>'
        )
    if box.retained is not None:
        parts.append(_retained(box.retained, most, top, stroke if mark else "var(--soft, #5a6672)"))
    return "".join(parts)


def _arrow(text: str, top: int) -> str:
    begin, end = top - GAP, top
    return (
        f'<path d="M 34 {begin} V {end - 7}" stroke="var(--soft, #5a6672)" stroke-width="1.5" fill="none"/>'
        f'<path d="M 29 {end - 8} L 34 {end - 1} L 39 {end - 8} Z" fill="var(--soft, #5a6672)"/>'
        f'<text x="50" y="{begin + 25}" fill="var(--ink, #1c232b)">{escape(_cut(text, 70))}</text>'
    )


def _retained(retained: int, most: int, top: int, colour: str) -> str:
    wide = max(2, round(_BAR * retained / most))
    x = BOX + 24
    return (
        f'<text x="{x}" y="{top + 19}" fill="var(--ink, #1c232b)">{escape(size(retained))}</text>'
        f'<rect x="{x}" y="{top + 28}" width="{min(wide, _BAR)}" height="6" rx="3" fill="{colour}" opacity="0.75"/>'
    )
