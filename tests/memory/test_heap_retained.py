"""Dominators and retained sizes against brute force, on abstract graphs and on living objects."""

import gc
import os
import random
from array import array
from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.long import often

from flatwater.memory import _heap, heap

NOWHERE = 0xFFFFFFFF


def reach(successors: list[list[int]], root: int, without: int | None = None) -> set[int]:
    seen: set[int] = set()
    todo = [root] if root != without else []
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += [other for other in successors[node] if other != without]
    return seen


def brute_force(successors: list[list[int]], sizes: list[int], root: int) -> tuple[list[int], list[int]]:
    """Take each node away in turn; what is no longer reached is what it dominates."""
    alive = reach(successors, root)
    dominated = {node: alive - reach(successors, root, node) for node in alive}
    retained = [sum(sizes[other] for other in dominated.get(node, ())) for node in range(len(sizes))]
    above = {node: [other for other in alive if node in dominated[other] and other != node] for node in alive}
    nearest = [
        min(above[node], key=lambda other: len(dominated[other]), default=node) if node in alive else NOWHERE
        for node in range(len(sizes))
    ]
    return nearest, retained


def walker(successors: list[list[int]], sizes: list[int], root: int) -> tuple[list[int], list[int]]:
    offsets, edges = array("I", [0]), array("I")
    for row in successors:
        edges.extend(row)
        offsets.append(len(edges))
    idom, retained = _heap.dominators(offsets, edges, array("Q", sizes), root)
    return array("I", idom).tolist(), array("Q", retained).tolist()


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[list[int]], list[int], int]:
    nodes = draw(st.integers(1, 24))
    node = st.integers(0, nodes - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=nodes * 3))
    successors: list[list[int]] = [[] for _ in range(nodes)]
    for source, target in pairs:
        successors[source].append(target)
    return successors, draw(st.lists(st.integers(0, 2**40), min_size=nodes, max_size=nodes)), draw(node)


@settings(max_examples=often(400))
@given(graphs())
def test_dominators_equal_brute_force(graph: tuple[list[list[int]], list[int], int]):
    assert walker(*graph) == brute_force(*graph)


def test_dominators_of_long_and_dense_graphs():
    chance = random.Random(5)
    for nodes, density in [(200, 1.0), (200, 2.0), (300, 5.0), (60, 30.0)]:
        successors = [
            [chance.randrange(nodes) for _ in range(int(chance.random() * 2 * density))] for _ in range(nodes)
        ]
        sizes = [chance.randrange(1000) for _ in range(nodes)]
        assert walker(successors, sizes, 0) == brute_force(successors, sizes, 0)


def test_dominators_of_a_chain_of_a_million_need_no_stack():
    nodes = 1_000_000
    offsets = array("I", range(nodes))
    offsets.append(nodes - 1)
    idom, retained = _heap.dominators(offsets, array("I", range(1, nodes)), array("Q", [1]) * nodes, 0)
    assert array("Q", retained)[0] == nodes
    assert array("I", idom)[nodes - 1] == nodes - 2


@pytest.mark.parametrize(
    ("offsets", "edges", "sizes", "root"),
    [([0, 1], [1], [5], 0), ([0, 2], [0], [5], 0), ([1, 1], [], [5], 0), ([0, 0], [], [5], 1), ([0], [], [5], 0)],
)
def test_arrays_that_do_not_fit_are_refused(offsets: list[int], edges: list[int], sizes: list[int], root: int):
    with pytest.raises(ValueError, match="CSR"):
        _heap.dominators(array("I", offsets), array("I", edges), array("Q", sizes), root)


class Plain:
    pass


class Slotted:
    __slots__ = tuple(f"field{number}" for number in range(8))


KINDS = ("list", "dict", "plain", "slotted", "deque", "set")


def make(kind: str) -> Any:
    made = {"list": list, "dict": dict, "plain": Plain, "slotted": Slotted, "deque": deque, "set": set}
    return made[kind]()


def refer(kind: str, source: Any, target: Any, number: int) -> bool:
    if kind in ("list", "deque"):
        source.append(target)
    elif kind == "dict":
        source[number] = target  # a small int: shared by everybody, retained by nobody
    elif kind in ("plain", "slotted"):
        setattr(source, f"field{number % 8}", target)
    elif target.__hash__:
        source.add(target)
    else:
        return False
    return True


def build(kinds: list[str], pairs: list[tuple[int, int]]) -> tuple[Any, list[int], list[list[int]]]:
    """Objects that refer to each other: the first of them, all addresses, and who refers to whom."""
    objects = [make(kind) for kind in kinds]
    for number, (source, target) in enumerate(pairs):
        refer(kinds[source], objects[source], objects[target], number % 100)
    numbers = {id(item): number for number, item in enumerate(objects)}
    held = []
    for item in objects:
        inside = gc.get_referents(item)
        held.append([numbers[id(other)] for other in inside if id(other) in numbers])
    return objects[0], [id(item) for item in objects], held


@settings(max_examples=often(24), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(KINDS), min_size=2, max_size=30).flatmap(
        lambda kinds: st.tuples(
            st.just(kinds),
            st.lists(st.tuples(*[st.integers(0, len(kinds) - 1)] * 2), max_size=len(kinds) * 2),
        )
    )
)
def test_retained_sizes_of_living_objects_equal_brute_force(plan: tuple[list[str], list[tuple[int, int]]]):
    first, addresses, held = build(*plan)
    alive = reach(held, 0)
    with heap.graph() as graph:
        nodes = {number: graph.node(None, address=addresses[number]) for number in alive}
        nearest = {number: graph.dominator(None, address=addresses[number]) for number in alive - {0}}
        holders = {number: graph.referrers(None, address=addresses[number]).links for number in alive}
    sizes = [nodes[number].bytes if number in alive else 0 for number in range(len(addresses))]
    dominator, retained = brute_force(held, sizes, 0)
    wrong = {number: holders[number] for number, node in nodes.items() if node.retained != retained[number]}
    assert wrong == {}, [holders[other] for number in wrong for other in held[number]]
    told = {number: node.address if isinstance(node, heap.Node) else None for number, node in nearest.items()}
    assert told == {number: addresses[dominator[number]] for number in alive - {0}}
    assert first is not None


def test_retained_size_of_a_leak_of_strings():
    kept = {"cache": [f"{'x' * 1000} {number}" for number in range(1000)]}
    with heap.graph() as graph:
        retained = graph.retained(kept)
        holdings = graph.holdings(kept)
        largest = graph.children(kept["cache"], limit=5)
        rank = [node.address for node in graph.largest(1000)]
    assert 1_050_000 < retained < 1_200_000
    assert holdings["str"].count >= 1000
    assert holdings.bytes == retained
    assert len(largest) == 5
    assert {node.type for node in largest} == {"str"}
    assert id(kept["cache"]) in rank


def test_what_two_holders_share_is_retained_by_neither():
    shared = ["x" * 100_000]
    first, second = [shared], [shared]
    del shared
    with heap.graph() as graph:
        assert graph.retained(first) < 1000
        assert graph.retained(second) < 1000
        assert graph.retained(first[0]) > 100_000
        assert first[0] is second[0]


def test_retained_of_the_roots_together_is_the_whole_heap():
    with heap.graph() as graph:
        figures = graph.statistics()
        assert graph.census().bytes == figures.bytes
        assert sum(root.retained for root in graph.roots()) <= figures.bytes
    if "PYTHONMALLOC" not in os.environ:  # objects lie far apart under malloc
        assert figures.graph_bytes < figures.objects * 145 + (4 << 20)
    assert figures.pause_s < figures.walk_s + 1
