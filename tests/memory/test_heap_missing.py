"""Without the C extension: a census in Python, and a clear statement of what is missing."""

import gc
from collections import deque

import pytest

from flatwater.memory import heap


class Item:
    def __sizeof__(self) -> int:
        raise AssertionError("the program's own code must not run")


class Odd(list):  # type: ignore[type-arg]
    def __len__(self) -> int:
        raise AssertionError("the program's own code must not run")


@pytest.fixture(autouse=True)
def _no_extension(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heap, "_heap", None)
    monkeypatch.setattr(heap, "_missing", heap.heap_fallback.MISSING)


def test_census_says_what_is_missing():
    kept = [Item() for _ in range(50)]
    census = heap.census()
    assert census[f"{__name__}.Item"].count == 50
    assert "was not built" in census.missing
    assert "gcc python3-dev" in census.missing
    assert len(kept) == 50


def test_containers_that_the_collector_lists():
    kept = [Odd([[]] * 4000), deque([[]] * 5000), {n: [] for n in range(3000)}]
    gc.collect()
    found = {row.address: row.length for row in heap.containers(2500)}
    assert [found[id(item)] for item in kept] == [4000, 5000, 3000]
    assert len(heap.containers(10, max_containers=3)) == 3


def test_everything_else_is_refused_with_the_remedy():
    for ask in (heap.graph, lambda: heap.path_to(1), lambda: heap.retained(1)):
        with pytest.raises(heap.HeapMissing, match="install a compiler"):
            ask()


def test_an_extension_for_another_patch_release_says_so(monkeypatch: pytest.MonkeyPatch):
    def refuse(name: str) -> None:
        raise ImportError("flatwater.memory._heap was built for Python 3.11.2, whose layouts differ from this one's")

    monkeypatch.setattr(heap.importlib, "import_module", refuse)
    loaded, why = heap._load()
    assert loaded is None
    assert "3.11.2" in why
