from __future__ import annotations

import gc
from math import inf, nan

import pytest

from flatwater.bounded import Cache, Fanout, Histogram, History, Holder, Ledger, TaskGroup, Usage, check_bound
from flatwater.errors import SettingError


class Shelf:
    """A holder as another layer would write it."""

    kind = "shelf"

    def __init__(self, name: str) -> None:
        self.name = name
        self.self_reference = self  # only a collection frees it

    def statistics(self) -> Usage:
        return Usage(size=3, bound=9, evictions=1)


def test_entry_tells_what_the_holder_says(ledger: Ledger) -> None:
    shelf = Shelf("books")
    ledger.register(shelf)
    (entry,) = ledger.entries()
    assert (entry.name, entry.kind, entry.size, entry.bound, entry.evictions) == ("books", "shelf", 3, 9, 1)
    assert (entry.bytes, entry.max_bytes) == (None, None)
    assert entry.statistics == shelf.statistics()


def test_registering_keeps_nothing_alive(ledger: Ledger) -> None:
    for number in range(100):
        ledger.register(Shelf(f"shelf {number}"))
    gc.collect()
    assert len(ledger) == 0
    assert ledger.entries() == []


def test_same_name_is_numbered_and_freed(ledger: Ledger) -> None:
    shelves = [Shelf("books") for _ in range(3)]
    assert [ledger.register(shelf) for shelf in shelves] == ["books", "books#2", "books#3"]
    del shelves[1]
    gc.collect()
    assert [entry.name for entry in ledger.entries()] == ["books", "books#3"]
    late = Shelf("books")
    assert ledger.register(late) == "books#2"


def test_every_bounded_object_registers_itself(ledger: Ledger) -> None:
    holders: list[Holder] = [
        TaskGroup("a group", max_tasks=7, ledger=ledger),
        Cache("b cache", max_entries=7, max_bytes=70, ttl_s=1, sizeof=lambda key, value: 1, ledger=ledger),
        History("c history", max_entries=7, ledger=ledger),
        Fanout("d fan-out", max_messages=7, max_subscribers=2, ledger=ledger),
        Histogram("e histogram", ledger=ledger),
    ]
    entries = ledger.entries()
    assert [(entry.name, entry.kind) for entry in entries] == [(holder.name, holder.kind) for holder in holders]
    assert [entry.bound for entry in entries[:4]] == [7] * 4
    assert all(isinstance(holder, Holder) for holder in holders)


@pytest.mark.parametrize("bound", [0, -1, nan, inf])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(SettingError, match=r"max_entries is .* \[here\]"):
        check_bound("max_entries", bound, where="here")
