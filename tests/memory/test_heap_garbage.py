"""Cyclic garbage: the set that a collection would free, found without a collection."""

import gc
import subprocess
import sys
import weakref

import pytest

from flatwater.memory import heap

HERE = __name__


class Knot:
    def __init__(self) -> None:
        self.me = self
        self.load: object = bytes(5000)


@pytest.fixture
def quiet_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.mark.usefixtures("quiet_collector")
def test_cycles_are_found_with_what_they_hold():
    made = [Knot() for _ in range(100)]
    reference = weakref.ref(made[0])
    del made
    with heap.graph() as graph:
        garbage = graph.garbage()
        path = graph.path_to(None, address=id(reference()))
    assert garbage.types[f"{HERE}.Knot"].count == 100
    assert garbage.types["bytes"].count >= 100
    assert garbage.bytes >= 500_000
    assert graph.statistics().garbage_bytes == garbage.bytes
    assert path.root.kind == "garbage"
    assert str(path).startswith("cyclic garbage")
    assert reference() is not None  # nothing was collected


@pytest.mark.usefixtures("quiet_collector")
def test_what_garbage_refers_to_does_not_live_by_it():
    kept = [["x" * 10_000]]
    knot = Knot()
    knot.load = kept[0]
    del knot
    with heap.graph() as graph:
        assert graph.retained(kept) > 10_000
        assert graph.dominator(kept[0]).address == id(kept)
        assert graph.garbage().bytes < 10_000
        assert "kept" in str(graph.path_to(kept[0]))


@pytest.mark.usefixtures("quiet_collector")
def test_living_cycles_are_not_garbage():
    kept = Knot()
    with heap.graph() as graph:
        assert graph.garbage().types[f"{HERE}.Knot"].count == 0
        assert graph.path_to(kept).root.kind == "frame"


EXACT = """
import gc, types
from flatwater.memory import heap
class Node:
    pass
def tangle(n):
    nodes = [Node() for _ in range(n)]
    for i, node in enumerate(nodes):
        node.others = [nodes[(i * 7 + 1) % n], nodes[(i * 3) % n]]
        node.call = lambda node=node: node
gc.collect(); gc.collect(); gc.disable()
tangle(500)
with heap.graph() as graph:
    told = sum(row.tracked for row in graph.garbage().types.types)
    kinds = {row.type: row.tracked for row in graph.garbage().types.types}
    del graph
gc.set_debug(gc.DEBUG_SAVEALL)
gc.collect()
said = len(gc.garbage)
names = {}
for item in gc.garbage:
    names[type(item).__qualname__] = names.get(type(item).__qualname__, 0) + 1
print(told, said)
for name in ("Node", "function", "list", "tuple"):
    full = "__main__.Node" if name == "Node" else name
    assert kinds.get(full, 0) == names.get(name, 0), (name, kinds, names)
assert abs(told - said) <= 4, (kinds, names)
"""


def test_the_set_is_the_collectors_own():
    done = subprocess.run([sys.executable, "-c", EXACT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 1500
