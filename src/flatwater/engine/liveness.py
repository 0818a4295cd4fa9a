"""Which block outputs later expressions can still read: everything else leaves the context at once.

A definition is static, so this follows from the tree. For each block D whose outputs are read, with L the lowest block
that contains D and all its readers:

- **Fresh**: in one branch of L, whose blocks run one after another, D comes before every reader and nothing between L
  and D can skip it. Then each pass through L sets D anew before it is read, and D can go as soon as the child of L that
  holds the last reader has ended (or what is in it, when it only runs its blocks one after another), loops around L or
  not.
- **Not fresh**: a reader may see what D gave in an earlier iteration, so D stays until the outermost block that repeats
  L has ended. If nothing repeats L, the readers run at most once, and D can go after the child of L that holds the last
  of them; after L itself when D and readers are in different branches or run side by side.
- Copies of ``ParallelRepeatNBp`` share one context: one copy must not drop what another will read, so inside them
  nothing goes before all have ended.
- What the definition's own outputs read is never dropped.

The model (`tests/engine/test_liveness.py`) runs random trees with and without dropping: readers see the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from flatwater.engine.block import Shape

Names: TypeAlias = Iterable[tuple[str, ...]]
_ALL: Final = ""
_END: Final = 1 << 60
"""A reader behind the last block: the definition's outputs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One block of a definition, in pre-order; ``parent`` and ``last`` are indices into that order.

    ``last`` is the last block inside this one (itself for a leaf). ``branch`` is the branch of ``parent`` that it is
    in. ``reads`` are the paths of its expressions (none for a disabled block). ``retried`` blocks are started again as
    a whole.
    """

    name: str
    parent: int
    last: int
    branch: str
    shape: Shape
    reads: frozenset[tuple[str, ...]]
    retried: bool = False


class Liveness(NamedTuple):
    """``releases``: block index → names to drop when it has ended. ``keeps``: name → output keys read, None for all."""

    releases: dict[int, tuple[str, ...]]
    keeps: dict[str, frozenset[str] | None]


def analyse(entries: Sequence[Entry], final: Names = ()) -> Liveness:
    """The liveness of a definition whose own outputs read the paths ``final``."""
    tree = Outline(entries)
    keeps, spans = _readers(entries, final)
    releases: dict[int, list[str]] = {}
    for index, entry in enumerate(entries):
        span = spans.get(entry.name)
        if span is not None and span[1] != _END:
            releases.setdefault(tree.release(index, *span), []).append(entry.name)
    return Liveness({index: tuple(names) for index, names in releases.items()}, keeps)


def _readers(
    entries: Sequence[Entry], final: Names
) -> tuple[dict[str, frozenset[str] | None], dict[str, tuple[int, int]]]:
    """What is read of each block, and its first and last reader."""
    keys: dict[str, set[str] | None] = {}
    spans: dict[str, tuple[int, int]] = {}
    for reader, reads in (*((index, entry.reads) for index, entry in enumerate(entries)), (_END, final)):
        for path in reads:
            if path[0] == "blocks":
                name = path[1] if len(path) > 1 else _ALL
                spans[name] = (spans.get(name, (reader, 0))[0], reader)
                wanted = keys.setdefault(name, set())
                if len(path) < 3:
                    keys[name] = None
                elif wanted is not None:
                    wanted.add(path[2])
    return _spread(entries, keys, spans)


def _spread(
    entries: Sequence[Entry], keys: dict[str, set[str] | None], spans: dict[str, tuple[int, int]]
) -> tuple[dict[str, frozenset[str] | None], dict[str, tuple[int, int]]]:
    """The readers of all blocks (``blocks[x]``) are readers of each; names that no block has are left out."""
    names = {entry.name for entry in entries}
    everything = spans.pop(_ALL, None)
    if everything is None:
        kept = {name: None if wanted is None else frozenset(wanted) for name, wanted in keys.items() if name in names}
        return kept, {name: span for name, span in spans.items() if name in names}
    first, last = everything
    for name in names:
        span = spans.get(name, everything)
        spans[name] = (min(first, span[0]), max(last, span[1]))
    return dict.fromkeys(names), {name: spans[name] for name in names}


class Outline:
    """Questions about the tree that the entries make."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def release(self, definer: int, first: int, last: int) -> int:
        """The block after whose end nothing can read ``definer``, when its readers lie from ``first`` to ``last``."""
        top = self.common(self.common(definer, first), last)
        copies = self.outermost(top, copies_only=True)
        if self._fresh(top, definer, first, last):
            return self._last(top, last) if copies is None else copies
        repeating = self.outermost(top)
        if repeating is not None:
            return repeating
        low, high = min(definer, first), max(definer, last)
        return self._last(top, high) if self._in_order(top, low, high) else top

    def common(self, a: int, b: int) -> int:
        """The lowest block that is or contains both."""
        while not a <= b <= self._entries[a].last:
            a = self._entries[a].parent
        return a

    def child(self, top: int, inner: int) -> int:
        """The child of ``top`` that is or contains ``inner``; ``top`` itself when ``inner`` is ``top``."""
        while inner != top and self._entries[inner].parent != top:
            inner = self._entries[inner].parent
        return inner

    def _last(self, top: int, reader: int) -> int:
        """The lowest block on the way from ``top`` to ``reader`` that is run, and once, whenever ``top`` is."""
        index = self.child(top, reader)
        while index != reader and self._entries[index].shape is Shape.SERIAL and not self._retries(index):
            index = self.child(index, reader)
        return index

    def outermost(self, index: int, *, copies_only: bool = False) -> int | None:
        """The outermost block, ``index`` or around it, that may run its children more than once."""
        found = None
        while index >= 0:
            entry = self._entries[index]
            if entry.shape is Shape.COPIES or (not copies_only and (entry.shape is Shape.LOOP or self._retries(index))):
                found = index
            index = entry.parent
        return found

    def _retries(self, index: int) -> bool:
        entry = self._entries[index]
        return entry.retried and entry.last > index

    def _in_order(self, top: int, first: int, last: int) -> bool:
        """Whether ``first`` and ``last`` are in children of ``top`` that run one after another."""
        if top in (first, last) or self._entries[top].shape is Shape.PARALLEL:
            return False
        one, other = (self._entries[self.child(top, each)] for each in (first, last))
        return one.branch == other.branch

    def _fresh(self, top: int, definer: int, first: int, last: int) -> bool:
        if top == definer or not self._in_order(top, definer, last) or first <= self._entries[definer].last:
            return False
        return all(self._certain(index) for index in self._up(definer, self.child(top, definer)))

    def _up(self, inner: int, outer: int) -> Iterable[int]:
        while inner != outer:
            yield inner
            inner = self._entries[inner].parent
        yield outer

    def _certain(self, index: int) -> bool:
        """Whether a block that has ended has certainly run all that is directly in it."""
        return self._entries[index].shape in (Shape.LEAF, Shape.SERIAL)

    def may_precede(self, definer: int, reader: int) -> bool:
        """Whether ``definer`` can have run when ``reader`` is evaluated."""
        top = self.common(definer, reader)
        if self.loops(top):
            return True
        if top == definer:
            return definer != reader
        if top == reader:
            return False
        one, other = (self._entries[self.child(top, each)].branch for each in (definer, reader))
        shape = self._entries[top].shape
        if shape in (Shape.PARALLEL, Shape.COPIES):
            return True
        return definer < reader if one == other else shape is Shape.GUARD and definer < reader

    def loops(self, index: int) -> bool:
        """Whether ``index`` is or is in a loop, or in copies that share what they know."""
        while index >= 0:
            if self._entries[index].shape in (Shape.LOOP, Shape.COPIES):
                return True
            index = self._entries[index].parent
        return False
