"""From growing containers to suspects: who owns them, what they keep alive, which of them are one leak."""

from __future__ import annotations

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any, Protocol

from flatwater.memory.growth import Growing
from flatwater.memory.heap_model import Census, Neighbours, Node, ObjectUnknown, Root, TypeGrowth, census_diff
from flatwater.memory.heap_path import ARROW, Path
from flatwater.memory.signature import shape

NOISE = (
    "flatwater.memory",
    "flatwater/memory",
    "tracemalloc.",
    "_flatwater",
)
"""Owners that are never the leak: our own parts."""
WEAK = ("WeakSet.", "WeakValueDictionary.", "WeakKeyDictionary.", "_weakrefset", "asyncio.tasks._scheduled_tasks")
"""Holders that keep nothing alive: they mirror a leak elsewhere."""
_CACHE = "functools._lru_cache_wrapper"
_BRANCH = 5  # steps of one class from which their names tell less than their number
_MORE = re.compile(r"… ([\d,]+) more …")
ITEMS = 200
"""How many entries of a container are looked at for their types."""
BUFFERS = ("bytearray", "bytes", "str", "_io.BytesIO", "array.array", "numpy.ndarray", "int")
MAX_ASKED = 40
"""How many growing containers the graph is asked about, the largest first."""


class GraphLike(Protocol):
    """The questions to :class:`flatwater.memory.heap_graph.Graph` that are asked here."""

    def node(self, item: object, *, address: int | None = None) -> Node: ...
    def path_to(self, item: object, *, address: int | None = None) -> Path: ...
    def dominators(self, item: object, *, address: int | None = None) -> tuple[Node | Root, ...]: ...
    def referents(self, item: object, *, limit: int = 20, address: int | None = None) -> Neighbours: ...
    def holdings(self, item: object, *, address: int | None = None) -> Census: ...
    def foreign(self, item: object, *, address: int | None = None) -> int: ...
    def largest(self, limit: int = 20) -> tuple[Node, ...]: ...


@dataclass(frozen=True, slots=True)
class Items:
    """What a container holds: the type of most entries, their number, and the bytes they keep alive (estimated)."""

    type: str
    count: int
    retained: int
    types: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Suspect:
    """A holder that grows: a container, or objects of one type when no container shows the growth.

    ``per_s`` entries (or objects), ``bytes_per_s`` retained; ``accumulation`` is the index in ``path.steps`` of the
    node where the memory gathers; ``merged`` how many growing containers are this one leak; ``weak`` when it keeps
    nothing alive. ``addresses`` are those to watch; ``foreign`` objects that it keeps may own memory outside Python.
    """

    what: str
    type: str
    length: int
    per_s: float
    low: float
    high: float
    bytes_per_s: float
    retained: int
    path: Path | None
    accumulation: int
    items: Items
    merged: int = 1
    weak: bool = False
    addresses: tuple[int, ...] = field(default=(), repr=False)
    holdings: tuple[tuple[str, int], ...] = ()
    foreign: int = 0

    @property
    def unreachable(self) -> bool:
        """Whether nothing but a cycle holds it."""
        return self.path is not None and self.path.root.kind == "garbage"

    @property
    def owner(self) -> str:
        """The path as a person reads it, ending in what grows: ``gateway.app → Gateway.tasks (set, +412/s)``."""
        name = self.type.rpartition(".")[2]
        if self.path is None:
            return f"{name} objects (+{self.per_s:,.3g}/s)"
        text = strip(str(self.path))
        many = f"{self.merged} × {name}" if self.merged > 1 else name
        return f"{text} ({many}, +{_rate(self.per_s)}/s)"


@dataclass(slots=True)
class _Found:
    row: Growing
    node: Node
    path: Path
    above: tuple[int, ...]
    inner: list[_Found] = field(default_factory=list)


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"


def strip(text: str) -> str:
    """A path's text without its last node's type and size, and without asyncio's way from the loop to a task."""
    text = text.rpartition(" (")[0] if text.endswith(")") else text
    loop, arrow, rest = text.partition(" → ")
    _, task, inside = rest.rpartition("Task ⇒ (in C) → ")
    text = f"{loop} → Task → {inside}" if arrow and task and loop.startswith("event loop") else text
    return _folded(text)


def _folded(text: str) -> str:
    """A chain of like steps as one: ``Version.previous × 4,231``; a branch of a tree as ``Node.… × 14``."""
    runs: list[list[str]] = []
    counts: list[int] = []
    for part in text.split(ARROW):
        more = _MORE.fullmatch(part)
        if more is not None and runs and counts[-1] > 1:
            counts[-1] += int(more[1].replace(",", ""))
        elif runs and _kind(runs[-1][-1]) == _kind(part):
            runs[-1].append(part)
            counts[-1] += 1
        else:
            runs.append([part])
            counts.append(1)
    return ARROW.join(_run(parts, count) for parts, count in zip(runs, counts, strict=True))


def _kind(part: str) -> str:
    """``Node`` of ``Node.left``; anything else is like itself alone."""
    kind, _, name = part.partition(".")
    return kind if kind.isidentifier() and name.isidentifier() else part


def _run(parts: list[str], count: int) -> str:
    if len(set(parts)) > 1 and count >= _BRANCH:
        return f"{_kind(parts[0])}.… × {count:,}"
    rows = [(part, len(list(like))) for part, like in groupby(parts)]
    rows[-1] = (rows[-1][0], rows[-1][1] + count - len(parts))
    return ARROW.join(part if many == 1 else f"{part} × {many:,}" for part, many in rows)


def suspects(graph: GraphLike, growing: Sequence[Growing], *, seconds: float, max_suspects: int = 8) -> list[Suspect]:
    """The leaks behind growing containers, by what they retain more of each second; at most ``max_suspects``.

    A growing container below another is part of that one. Containers whose paths have one shape are one leak. What only
    mirrors others (weak sets) comes last.
    """
    found = [entry for row in growing[:MAX_ASKED] if (entry := _look(graph, row)) is not None]
    outer = _outermost(found)
    groups: dict[str, list[_Found]] = defaultdict(list)
    for entry in outer:
        groups[shape(strip(str(entry.path)))].append(entry)
    more = _unasked(growing)
    made = [_suspect(graph, group, more.get(group[0].row.type, 1.0)) for group in groups.values()]
    made.sort(key=lambda suspect: (suspect.weak, -suspect.bytes_per_s))
    return made[:max_suspects]


def _unasked(growing: Sequence[Growing]) -> dict[str, float]:
    """By type, how many times what the graph is asked about all growing containers gain."""
    gains: dict[str, float] = defaultdict(float)
    asked: dict[str, float] = defaultdict(float)
    for at, row in enumerate(growing):
        gains[row.type] += row.growth_per_s
        asked[row.type] += row.growth_per_s if at < MAX_ASKED else 0.0
    return {kind: gains[kind] / gain for kind, gain in asked.items() if gain}


def _look(graph: GraphLike, row: Growing) -> _Found | None:
    try:
        path = graph.path_to(None, address=row.address)
        node = graph.node(None, address=row.address)
        if path.nodes[-2:-1] and path.nodes[-2].type == _CACHE:  # it holds the values, its dict only finds them
            node = replace(node, retained=path.nodes[-2].retained)
        above = graph.dominators(None, address=row.address)
    except ObjectUnknown:
        return None
    text = str(path)
    if path.root.kind == "garbage" or not path.steps or any(mark in text for mark in NOISE):
        return None
    return _Found(row, node, path, tuple(up.address for up in above if isinstance(up, Node)))


def _outermost(found: Sequence[_Found]) -> list[_Found]:
    by_address = {entry.row.address: entry for entry in found}
    outer = []
    for entry in found:
        above = [by_address[up] for up in entry.above if up in by_address]
        held = _on_path(entry, by_address)
        if above:
            above[-1].inner.append(entry)
        elif held is not None:
            held.inner.append(entry)
        else:
            outer.append(entry)
    return outer


def _on_path(entry: _Found, by_address: dict[int, _Found]) -> _Found | None:
    """A growing container on the way to this one, when the lesser is clearly an entry of it."""
    for node in entry.path.nodes[:-1]:
        other = by_address.get(node.address)
        if other is not None and other.node.retained >= entry.node.retained:
            return other
    return None


def _suspect(graph: GraphLike, group: list[_Found], more: float) -> Suspect:
    """``more`` is how many times the group's growth that of all its like is."""
    group.sort(key=lambda entry: -entry.node.retained)
    first = group[0]
    retained = round(sum(entry.node.retained for entry in group) * more)
    length = round(sum(entry.row.length for entry in group) * more)
    per_s = sum(entry.row.growth_per_s for entry in group) * more
    each = retained / max(length, 1)
    inner = sum(one.row.bytes_per_s for entry in group for one in entry.inner)
    text = str(first.path)
    addresses = [entry.row.address for entry in group]
    addresses += [one.row.address for entry in group for one in entry.inner]
    return Suspect(
        what="container",
        type=first.node.type,
        length=length,
        per_s=per_s,
        low=sum(entry.row.low for entry in group) * more,
        high=sum(entry.row.high for entry in group) * more,
        bytes_per_s=max(per_s * each, inner, 8.0 * per_s),
        retained=retained,
        path=first.path,
        accumulation=_accumulation(first.path, retained),
        items=_items(graph, first, length),
        merged=round(len(group) * more),
        weak=any(mark in text for mark in WEAK),
        addresses=tuple(addresses[:16]),
        holdings=_holdings(graph, first.row.address),
        foreign=graph.foreign(None, address=first.row.address),
    )


def _accumulation(path: Path, retained: int) -> int:
    """The last step whose node keeps most of the memory alive: below it the retained size drops."""
    best = len(path.steps) - 1
    if not isinstance(path.steps[best].node, Node) or path.steps[best].node.retained >= 0.6 * retained:
        return best
    for at in range(best - 1, -1, -1):
        if path.steps[at].node.retained >= 0.6 * retained:
            return at
    return best


def _items(graph: GraphLike, found: _Found, length: int) -> Items:
    counts: Counter[str] = Counter()
    bytes_by: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    with contextlib.suppress(ObjectUnknown):
        for link in graph.referents(None, limit=ITEMS, address=found.row.address).links:
            if not isinstance(link.node, Node) or link.edge.kind == "attribute" or link.node.type == "type":
                continue
            into = keys if "as a key" in link.edge.name else counts
            into[link.node.type] += 1
            bytes_by[link.node.type] += link.node.retained
    if not counts or (keys and set(counts) <= {"NoneType", "bool", "int", "float"}):
        counts = keys or counts
    if not counts:
        return Items("", 0, 0)
    kind = max(counts, key=lambda name: (counts[name], bytes_by[name]))
    share = counts[kind] / counts.total()
    mean = bytes_by[kind] / counts[kind]
    many = round(length * share)
    return Items(kind, many, round(many * mean), tuple(counts.most_common(5)))


def _holdings(graph: GraphLike, address: int) -> tuple[tuple[str, int], ...]:
    with contextlib.suppress(ObjectUnknown):
        return tuple((row.type, row.count) for row in graph.holdings(None, address=address).types[:40])
    return ()


def by_type(
    graph: GraphLike,
    type_name: str,
    rates: tuple[float, float, float, float],
    count: int,
    sampled: Iterable[int],
    growing: Container[int] = (),
    found: Sequence[Suspect] = (),
) -> tuple[Suspect, int]:
    """A type whose objects become more: the path that most of the ``sampled`` objects (addresses) share.

    ``rates`` are objects per second, its interval's ends, and bytes per second. Also the address of the container
    among those ``growing`` that most of the paths go through, because of which these objects become more; 0 if there is
    none.
    """
    shapes: dict[str, list[Path]] = defaultdict(list)
    through: Counter[int] = Counter()
    retained: list[int] = []
    for address in sampled:
        with contextlib.suppress(ObjectUnknown):
            path = graph.path_to(None, address=address)
            if path.steps and not any(mark in str(path) for mark in NOISE):
                shapes[shape(strip(str(path)))].append(path)
                above = modules(found) if path.root.kind == "module" else 0
                through.update([next((node.address for node in path.nodes[:-1] if node.address in growing), above)])
                retained.append(graph.node(None, address=address).retained)
    common = max(shapes.values(), key=len)[0] if shapes else None
    chain = bool(retained) and max(retained) > 4 * min(retained)  # each holds all that follow
    each = 0.0 if chain or not retained else sum(retained) / len(retained)
    per_s, low, high, own = rates
    gained = max(own, per_s * each)
    items = Items(type_name, count, max(retained) if chain else round(each * count))
    at = len(common.steps) - 1 if common else 0
    made = Suspect("type", type_name, count, per_s, low, high, gained, items.retained, common, at, items)
    if common is not None:
        made = replace(made, addresses=tuple(node.address for node in common.nodes[-2:]))
    held = through.total() - through.pop(0, 0)
    return made, max(through, key=lambda address: through[address]) if held > len(retained) / 2 else 0


def bounded_by(one: Suspect) -> tuple[int, int]:
    """Addresses of a container and of what holds it, which may know how long it can become; 0 for a root."""
    holders = one.path.nodes[:-1] if one.path is not None else ()
    return one.addresses[0], holders[-1].address if holders else 0


def modules(found: Sequence[Suspect]) -> int:
    """The address of ``sys.modules`` if it grows, else 0: a path begins below it, at the module."""
    at = (one.addresses[0] for one in found if one.path is not None and strip(str(one.path)) == "sys.modules")
    return next(at, 0)


def credited(found: Sequence[Suspect], address: int, bytes_per_s: float) -> list[Suspect]:
    """The suspects, with what was found to grow below the container at ``address`` (the first where none is it)."""
    mine = next((one for one in found if address in one.addresses), None) or next(iter(found), None)
    return [replace(one, bytes_per_s=max(one.bytes_per_s, bytes_per_s)) if one is mine else one for one in found]


def slots(path: Path | None) -> list[tuple[int, str | None, int]]:
    """The attributes, dict values and cells on the way to where a chain begins, the nearest to it last.

    Each as (address of the holder, name or None, address of what it holds), at most four.
    """
    found: list[tuple[int, str | None, int]] = []
    known: set[tuple[str, str]] = set()
    for holder, step in pairwise(path.steps if path is not None else ()):
        edge = step.edge
        if (
            not isinstance(holder.node, Node)
            or not isinstance(step.node, Node)
            or (holder.node.type, edge.name) in known
        ):
            break
        if edge.kind in ("attribute", "key", "cell"):
            found.append((holder.node.address, edge.name or None, step.node.address))
            known.add((holder.node.type, edge.name))
    return found[-4:]


def swollen(graph: GraphLike, row: TypeGrowth, seconds: float) -> Suspect | None:
    """The one object of a type whose bytes grow while their number does not: a buffer, a long text."""
    node = next((node for node in graph.largest(1000) if node.type == row.type), None)
    if node is None or node.bytes < row.bytes / 2:  # no single one: others came
        return None
    path = graph.path_to(None, address=node.address)
    if not path.steps or any(mark in str(path) for mark in NOISE):
        return None
    per_s = row.bytes / seconds
    items = Items("byte" if row.type in ("bytearray", "bytes", "str") else row.type, node.bytes, node.retained)
    return Suspect(
        what="buffer",
        type=row.type,
        length=node.bytes,
        per_s=per_s,
        low=per_s,
        high=per_s,
        bytes_per_s=per_s,
        retained=node.retained,
        path=path,
        accumulation=len(path.steps) - 1,
        items=items,
        addresses=(node.address,),
    )


def swelling(before: Census, after: Census, least: int) -> TypeGrowth | None:
    """The type of atoms whose bytes grew most, by ``least`` at least, and far more than its objects became more."""
    for row in census_diff(before, after)[:10]:
        was = before[row.type]
        each = was.bytes / was.count if was.count else 0.0
        if row.type in BUFFERS and row.bytes >= least and row.count * each < 0.5 * row.bytes:
            return row
    return None


def path_json(suspect: Suspect) -> dict[str, Any] | None:
    """The path for reports: steps with names, types and sizes; the accumulation point and the suspect are marked."""
    if suspect.path is None:
        return None
    told = suspect.path.to_json()
    for at, step in enumerate(told["steps"]):
        step["accumulation"] = at == suspect.accumulation
        step["suspect"] = at == len(told["steps"]) - 1
    return told
