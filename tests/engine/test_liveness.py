"""Liveness: what is dropped early, what must stay, and a model which shows that no reader ever misses anything."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flatwater.engine.block import Shape
from flatwater.engine.liveness import Entry, Liveness, Outline, analyse
from tests.long import often

BRANCHES = {Shape.CHOICE: ("if", "else"), Shape.GUARD: ("try", "catch")}


@dataclass
class Tree:
    """A block of the model; ``act`` is what a leaf does besides giving a value: nothing, break, return, stop others."""

    name: str
    shape: Shape = Shape.LEAF
    reads: tuple[str, ...] = ()
    branches: dict[str, list[Tree]] = field(default_factory=dict)
    skipped: bool = False
    retried: bool = False
    act: str = ""
    index: int = -1

    def entries(
        self, parent: int = -1, branch: str = "", found: list[Entry] | None = None, off: bool = False
    ) -> list[Entry]:
        """The tree in pre-order; sets ``index``."""
        off = off or self.skipped
        found = [] if found is None else found
        self.index = len(found)
        found.append(None)  # type: ignore[arg-type]
        for name, children in self.branches.items():
            for child in children:
                child.entries(self.index, name, found, off)
        reads = frozenset(tuple(path.split(".")) for path in self.reads if not off)
        last = len(found) - 1
        found[self.index] = Entry(self.name, parent, last, branch, self.shape, reads, self.retried)
        return found


def leaf(name: str, *reads: str, **more: Any) -> Tree:
    return Tree(name, reads=tuple(f"blocks.{each}" if each else "blocks" for each in reads), **more)


def box(name: str, shape: Shape, *children: Tree, reads: Iterable[str] = (), **more: Any) -> Tree:
    """A container; of two branches the second has the children whose names begin with its own."""
    names = BRANCHES.get(shape, ("default",))
    branches: dict[str, list[Tree]] = {each: [] for each in names}
    for child in children:
        branches[names[-1] if child.name.startswith(names[-1]) else names[0]].append(child)
    return Tree(name, shape, tuple(f"blocks.{each}" for each in reads), branches, **more)


def root(*children: Tree) -> Tree:
    return box("root", Shape.SERIAL, *children)


def released(tree: Tree, final: Iterable[str] = ()) -> dict[str, str]:
    """For each name the block after whose end it is dropped."""
    entries = tree.entries()
    live = analyse(entries, [tuple(path.split(".")) for path in final])
    return {name: entries[index].name for index, names in live.releases.items() for name in names}


# ---- what is dropped when ---------------------------------------------------------------------------


def test_after_the_last_reader() -> None:
    tree = root(leaf("a"), leaf("b", "a.x"), leaf("c", "a.y", "b.z"), leaf("d"))
    assert released(tree) == {"a": "c", "b": "c"}


def test_what_nobody_reads_is_never_live() -> None:
    entries = root(leaf("a"), leaf("b", "a.x", "gone.y")).entries()
    assert analyse(entries).keeps == {"a": frozenset({"x"})}


def test_which_keys_are_read() -> None:
    entries = root(leaf("a"), leaf("b"), leaf("c", "a.x", "a.y.z", "b")).entries()
    assert analyse(entries).keeps == {"a": frozenset({"x", "y"}), "b": None}
    assert analyse(entries, [("blocks",)]).keeps == dict.fromkeys(["root", "a", "b", "c"])


def test_after_the_container_that_holds_the_last_reader() -> None:
    tree = root(leaf("a"), box("if", Shape.CHOICE, leaf("r", "a.x")), leaf("z"))
    assert released(tree) == {"a": "if"}
    tree = root(leaf("a"), box("par", Shape.PARALLEL, leaf("r", "a.x"), leaf("s", "a.x")), leaf("z"))
    assert released(tree) == {"a": "par"}


def test_a_condition_reads_too() -> None:
    tree = root(leaf("a"), box("if", Shape.CHOICE, leaf("r"), reads=["a.x"]), leaf("z"))
    assert released(tree) == {"a": "if"}


def test_read_in_a_loop_but_set_before_it() -> None:
    tree = root(leaf("a"), box("loop", Shape.LOOP, leaf("r", "a.x"), leaf("s")), leaf("z"))
    assert released(tree) == {"a": "loop"}


def test_set_anew_in_each_iteration() -> None:
    tree = root(box("loop", Shape.LOOP, leaf("a"), leaf("r", "a.x"), leaf("s")))
    assert released(tree) == {"a": "r"}


def test_read_from_the_iteration_before() -> None:
    tree = root(box("out", Shape.LOOP, box("in", Shape.LOOP, leaf("r", "a.x"), leaf("a"), leaf("s"))), leaf("z"))
    assert released(tree) == {"a": "out"}
    tree = root(box("loop", Shape.LOOP, leaf("a"), reads=["a.done"]), leaf("z"))
    assert released(tree) == {"a": "loop"}


def test_perhaps_not_set_in_this_iteration() -> None:
    for shape in (Shape.CHOICE, Shape.LOOP, Shape.GUARD, Shape.PARALLEL):
        tree = root(box("loop", Shape.LOOP, box("perhaps", shape, leaf("a")), leaf("r", "a.x"), leaf("s")))
        assert released(tree) == {"a": "loop"}, shape
    tree = root(box("loop", Shape.LOOP, box("ser", Shape.SERIAL, leaf("a")), leaf("r", "a.x"), leaf("s")))
    assert released(tree) == {"a": "r"}


def test_side_by_side() -> None:
    tree = root(box("par", Shape.PARALLEL, leaf("a"), leaf("r", "a.x"), leaf("s")), leaf("z"))
    assert released(tree) == {"a": "par"}
    tree = root(box("many", Shape.COPIES, leaf("a"), leaf("r", "a.x"), leaf("s")), leaf("z"))
    assert released(tree) == {"a": "many"}


def test_try_and_catch() -> None:
    tree = root(box("guard", Shape.GUARD, leaf("a"), leaf("catch_r", "a.x")), leaf("z"))
    assert released(tree) == {"a": "guard"}


def test_outputs_of_what_is_around() -> None:
    tree = root(box("each", Shape.LOOP, leaf("r", "each.item"), leaf("s")), leaf("z"))
    assert released(tree) == {"each": "each"}
    tree = root(leaf("a"), box("robot", Shape.SERIAL, leaf("r", "a.id"), leaf("s")), leaf("z"))
    assert released(tree) == {"a": "r"}
    tree = root(box("robot", Shape.SERIAL, leaf("r", "robot.id"), leaf("s")), leaf("z", "robot.id"))
    assert released(tree) == {"robot": "z"}


def test_whole_context_and_outputs() -> None:
    tree = root(leaf("a"), leaf("b"), leaf("all", ""), leaf("d"), leaf("e", "d"))
    assert released(tree) == {"root": "root", "a": "all", "b": "all", "all": "all", "d": "e", "e": "e"}
    assert released(root(leaf("a"), leaf("b", "a.x")), ["blocks.a.y"]) == {}


def test_a_disabled_block_reads_nothing() -> None:
    assert released(root(leaf("a"), leaf("b", "a.x"), leaf("c", "a.x", skipped=True))) == {"a": "b"}


def test_a_retried_container_is_a_loop() -> None:
    tree = root(box("again", Shape.SERIAL, leaf("r", "a.x"), leaf("a"), leaf("s"), retried=True), leaf("z"))
    assert released(tree) == {"a": "again"}


@pytest.mark.parametrize(
    ("tree", "definer", "reader", "possible"),
    [
        (root(leaf("a"), leaf("b")), "a", "b", True),
        (root(leaf("a"), leaf("b")), "b", "a", False),
        (root(leaf("a")), "a", "a", False),
        (root(box("l", Shape.LOOP, leaf("a"))), "a", "a", True),
        (root(box("l", Shape.LOOP, leaf("a"), leaf("b"))), "b", "a", True),
        (root(box("l", Shape.LOOP, leaf("a"))), "a", "l", True),
        (root(box("l", Shape.LOOP, leaf("a"))), "l", "a", True),
        (root(box("i", Shape.CHOICE, leaf("a"), leaf("else_b"))), "a", "else_b", False),
        (root(box("i", Shape.CHOICE, leaf("a"))), "a", "i", False),
        (root(box("g", Shape.GUARD, leaf("a"), leaf("catch_b"))), "a", "catch_b", True),
        (root(box("g", Shape.GUARD, leaf("a"), leaf("catch_b"))), "catch_b", "a", False),
        (root(box("p", Shape.PARALLEL, leaf("a"), leaf("b"))), "b", "a", True),
    ],
)
def test_what_can_have_run_before(tree: Tree, definer: str, reader: str, possible: bool) -> None:
    entries = tree.entries()
    places = {entry.name: index for index, entry in enumerate(entries)}
    assert Outline(entries).may_precede(places[definer], places[reader]) is possible


# ---- the model --------------------------------------------------------------------------------------


class Failed(Exception):
    pass


class Broken(Exception):
    pass


class Returned(Exception):
    pass


Steps = Generator[None, None, None]


class Model:
    """Runs a tree step by step with decisions by chance (never by values), and notes what every reader sees."""

    def __init__(self, seed: int, live: Liveness | None) -> None:
        self.chance = random.Random(seed)
        self.live = live
        self.blocks: dict[str, int] = {}
        self.seen: list[tuple[str, Any]] = []
        self.given = 0
        self.left = 400

    def run(self, tree: Tree) -> None:
        try:
            for _ in self.execute(tree):
                pass
        except (Failed, Returned):
            pass

    def give(self, tree: Tree) -> None:
        self.given += 1
        if self.live is None or tree.name in self.live.keeps:
            self.blocks[tree.name] = self.given

    def read(self, tree: Tree) -> None:
        for path in tree.reads:
            name = path.partition(".")[2].partition(".")[0]
            self.seen.append((tree.name, self.blocks.get(name) if name else sorted(self.blocks.items())))

    def execute(self, tree: Tree) -> Steps:
        self.left -= 1
        if tree.skipped or self.left < 0:
            return
        try:
            while True:
                try:
                    yield from self.attempt(tree)
                    return
                except Failed:
                    if not tree.retried or self.chance.random() < 0.3:
                        raise
        finally:
            for name in self.live.releases.get(tree.index, ()) if self.live else ():
                self.blocks.pop(name, None)

    def attempt(self, tree: Tree) -> Steps:
        self.read(tree)
        yield
        if tree.shape is Shape.LEAF:
            if self.chance.random() < 0.2:
                raise Failed
            self.give(tree)
            if tree.act == "break":
                raise Broken
            if tree.act == "return":
                raise Returned
            return
        early = self.chance.random() < 0.5
        if early:
            self.give(tree)
        yield from getattr(self, tree.shape.value)(tree)
        if not early or self.chance.random() < 0.5:
            self.give(tree)

    def serial(self, tree: Tree, branch: str = "default") -> Steps:
        for child in tree.branches[branch]:
            yield from self.execute(child)

    def choice(self, tree: Tree) -> Steps:
        branch = self.chance.choice(("if", "else", None))
        if branch is not None:
            yield from self.serial(tree, branch)

    def loop(self, tree: Tree) -> Steps:
        for _ in range(self.chance.randrange(4)):
            self.give(tree)
            try:
                yield from self.serial(tree)
            except Broken:
                return
            self.read(tree)

    def guard(self, tree: Tree) -> Steps:
        try:
            yield from self.serial(tree, "try")
        except Failed:
            self.give(tree)
            yield from self.serial(tree, "catch")
            if self.chance.random() < 0.3:
                raise

    def parallel(self, tree: Tree) -> Steps:
        yield from self.together([self.execute(child) for child in tree.branches["default"]])

    def copies(self, tree: Tree) -> Steps:
        yield from self.together([self.serial(tree) for _ in range(self.chance.randrange(4))])

    def together(self, branches: list[Steps]) -> Steps:
        """Interleave; a branch that fails, breaks or by chance stops the others closes them."""
        try:
            while branches:
                branch = self.chance.choice(branches)
                try:
                    next(branch)
                    if self.chance.random() < 0.03:
                        for other in branches:
                            if other is not branch:
                                other.close()
                        branches[:] = [branch]
                except StopIteration:
                    branches.remove(branch)
                yield
        finally:
            for branch in branches:
                branch.close()


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    size = draw(st.integers(2, 10))
    names = [f"n{index}" for index in range(size)]
    left: Iterator[str] = iter(names)
    paths = st.sampled_from([f"blocks.{name}" for name in names] * 3 + ["blocks"])

    def grow(depth: int, looped: bool) -> Tree | None:
        name = next(left, None)
        if name is None:
            return None
        leaves = depth >= 5 or draw(st.integers(0, 9)) < 4
        shape = Shape.LEAF if leaves else draw(st.sampled_from([each for each in Shape if each is not Shape.LEAF]))
        tree = Tree(
            name,
            shape,
            reads=(draw(paths),),
            skipped=draw(st.integers(0, 19)) == 0,
            retried=draw(st.integers(0, 3)) == 0,
        )
        if shape is Shape.LEAF:
            tree.act = draw(st.sampled_from(["", "", "", "", "", "", "return", "break" if looped else ""]))
        for branch in () if shape is Shape.LEAF else BRANCHES.get(shape, ("default",)):
            inner = [grow(depth + 1, looped or shape is Shape.LOOP) for _ in range(draw(st.integers(1, 3)))]
            tree.branches[branch] = [child for child in inner if child is not None]
        return tree

    looped = draw(st.booleans())
    grown = [grow(1, looped) for _ in range(size)]
    children = [child for child in grown if child is not None]
    return root(box("loop", Shape.LOOP, *children)) if looped else root(*children)


@settings(max_examples=often(1_500), deadline=None)
@given(trees(), st.lists(st.integers(0, 2**32), min_size=10, max_size=10), st.booleans())
def test_dropping_changes_nothing_that_is_read(tree: Tree, seeds: list[int], outputs: bool) -> None:
    final = [("blocks", "n1")] if outputs else []
    live = analyse(tree.entries(), final)
    for seed in seeds:
        full, lean = Model(seed, None), Model(seed, live)
        full.run(tree)
        lean.run(tree)
        assert lean.seen == full.seen
        for path in final:
            assert lean.blocks.get(path[1]) == full.blocks.get(path[1])
