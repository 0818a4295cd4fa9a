from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.bounded import History, Ledger
from flatwater.errors import SettingError


def test_newest_items_stay(ledger: Ledger) -> None:
    history: History[int] = History("h", max_entries=3, ledger=ledger)
    for number in range(10):
        assert history.add(number)
    assert list(history) == [7, 8, 9]
    assert history.latest(2) == [9, 8]
    assert history.latest(-1) == []
    statistics = history.statistics()
    assert (statistics.size, statistics.bound, statistics.evictions, statistics.added) == (3, 3, 7, 10)
    assert statistics.bytes is None
    history.clear()
    assert list(history) == []


def test_oversize_item_is_refused_and_spares_the_others(ledger: Ledger) -> None:
    history: History[str] = History("h", max_entries=9, max_bytes=5, sizeof=len, ledger=ledger)
    history.add("abc")
    assert not history.add("too long")
    assert list(history) == ["abc"]
    assert history.statistics().oversize == 1


@given(
    max_entries=st.integers(1, 6),
    max_bytes=st.integers(1, 30),
    sizes=st.lists(st.one_of(st.none(), st.integers(0, 35)), max_size=60),
)
def test_as_the_model(max_entries: int, max_bytes: int, sizes: list[int | None]) -> None:
    """Model: a plain list, trimmed at the front. None stands for clear()."""
    history: History[str] = History("h", max_entries=max_entries, max_bytes=max_bytes, sizeof=len, ledger=Ledger())
    model: list[str] = []
    evictions = oversize = 0
    for size in sizes:
        if size is None:
            history.clear()
            model.clear()
        elif size > max_bytes:
            assert not history.add("x" * size)
            oversize += 1
        else:
            assert history.add("x" * size)
            model.append("x" * size)
            while len(model) > max_entries or sum(map(len, model)) > max_bytes:
                del model[0]
                evictions += 1
        assert list(history) == model
        statistics = history.statistics()
        assert statistics.bytes == sum(map(len, model)) <= max_bytes
        assert (statistics.size, statistics.evictions, statistics.oversize) == (len(model), evictions, oversize)


def test_bytes_need_a_measure(ledger: Ledger) -> None:
    with pytest.raises(SettingError, match="go together"):
        History("h", max_entries=1, max_bytes=5, ledger=ledger)
