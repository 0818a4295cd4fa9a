"""Growth that no container shows: who holds it, which slot changes, what keeps it by its source; and known bounds."""

import asyncio
import functools
import inspect
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flatwater.memory import anchor
from flatwater.memory.heap import graph
from flatwater.memory.statement import kept_at
from flatwater.memory.target import Here

HERE = str(Path(__file__))


class Entry:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lower: Entry | None = None
        self.upper: Entry | None = None


class Shop:
    """Grows in ways that lengthen no container that lives on."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.head: tuple[object, ...] | None = None
        self.top = Entry("top")

    def copy(self, number: int) -> None:
        self.rows = [*self.rows, f"row {number} " * 20]  # here

    def chain(self, number: int) -> None:
        self.head = (f"link {number} " * 20, self.head)  # here

    def branch(self, number: int) -> None:
        at = self.top
        for bit in f"{number % 4096:012b}":
            side = "lower" if bit == "0" else "upper"
            if getattr(at, side) is None:
                setattr(at, side, Entry(f"entry {number} " * 20))  # here
            at = getattr(at, side)


shop = Shop()


@pytest.mark.parametrize(
    ("grow", "path"),
    [(shop.copy, "shop → Shop.rows"), (shop.chain, "shop → Shop.head"), (shop.branch, "shop → Shop.top")],
)
def test_anchor_of_growth_without_a_container(grow: Callable[[int], None], path: str) -> None:
    for number in range(500):
        grow(number)
    with graph() as first:
        before = anchor.outline(first, 0.0)
    for number in range(500, 4000):
        grow(number)
    with graph() as second:
        found = anchor.find(second, before, anchor.outline(second, 1.0))
    assert found is not None
    assert f"{__name__}.{path}" in str(found.path)
    assert found.gained > 3500 * 100


def test_no_anchor_when_nothing_grows() -> None:
    with graph() as first:
        before = anchor.outline(first, 0.0)
        assert anchor.find(first, before, before) is None


@pytest.mark.parametrize("grow", [shop.copy, shop.chain])
def test_line_that_changes_a_slot(grow: Callable[[int], None]) -> None:
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.wait(0.002):
            grow(number := number + 1)

    name = "rows" if grow == shop.copy else "head"
    worker = threading.Thread(target=work)
    worker.start()
    try:
        with Here() as here:
            slots = [(id(shop), name, id(getattr(shop, name)))]
            [row] = here.ask("watch", addresses=[], slots=slots, seconds=60.0, max_events=20)["containers"]
    finally:
        ended.set()
        worker.join()
    lines, first = inspect.getsourcelines(grow)
    line = first + next(number for number, text in enumerate(lines) if "# here" in text)
    assert (row["inserted_at"][0]["file"], row["inserted_at"][0]["line"]) == (HERE, line)


def slot_names() -> dict[str, Any]:
    made: list[str] = []

    class Watched:
        __slots__ = ("plain",)

        @property
        def computed(self) -> object:
            made.append("a descriptor of the program ran")
            return object()

    one = Watched()
    one.plain = one
    return {"one": one, "made": made}


def test_no_descriptor_of_the_program_runs() -> None:
    from flatwater.memory.slot import content

    names = slot_names()
    assert content((names["one"], "plain")) is names["one"]
    assert content((names["one"], "computed")) is None
    assert content((names, "one")) is names["one"]
    assert content((names, "absent")) is None
    assert names["made"] == []


PROGRAM = """
def direct(tree, number):
    tree.left = Node(number)

def by_name(tree, number):
    node = Node(number)
    print(number)
    tree.add(node)

def handed_back(number):
    return Node(number)

def caller(tree):
    tree.left = handed_back(1)

def into_a_pair(rows, number):
    node = Node(number)
    rows.append((number, node))

def lost(number):
    node = Node(number)
"""


@pytest.mark.parametrize(
    ("lines", "kept"),
    [((3,), 3), ((6,), 8), ((11, 14), 14), ((17,), 18), ((21,), None)],
)
def test_statement_that_keeps_what_a_line_makes(lines: tuple[int, ...], kept: int | None, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM, "utf-8")
    place = kept_at([(str(file), "function", line) for line in lines])
    assert (place[2] if place else None) == kept


def test_bounds_that_the_standard_library_keeps() -> None:
    @functools.lru_cache(maxsize=77)
    def cached(number: int) -> int:
        return number

    cached(1)
    full, free = deque([1], maxlen=55), deque([1])
    waiting: queue.Queue[int] = queue.Queue(66)
    later: asyncio.Queue[int] = asyncio.Queue()
    pairs = [
        (id(full), 0),
        (id(free), 0),
        (id(waiting.queue), id(waiting)),
        (id(later._queue), id(later)),  # type: ignore[attr-defined]
        (id(free), id(cached)),
    ]
    with Here() as here:
        assert here.ask("bounds", pairs=pairs) == [55, None, 66, None, 77]
