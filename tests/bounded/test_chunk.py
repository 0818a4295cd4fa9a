"""Pieces of a stream: everything comes once, in order, within the bounds, and nothing of it is held."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.bounded import achunks, chunks
from flatwater.errors import SettingError

ITEMS = st.lists(st.integers(0, 30))


@given(items=ITEMS, max_items=st.integers(1, 7), max_bytes=st.none() | st.integers(1, 40))
def test_all_of_it_in_order_within_the_bounds(items: list[int], max_items: int, max_bytes: int | None) -> None:
    sizeof = None if max_bytes is None else lambda item: item
    found = list(chunks(items, max_items=max_items, max_bytes=max_bytes, sizeof=sizeof))
    assert [item for chunk in found for item in chunk] == items
    assert all(0 < len(chunk) <= max_items for chunk in found)
    assert max_bytes is None or all(sum(chunk) <= max_bytes or len(chunk) == 1 for chunk in found)
    for one, other in pairwise(found):  # no chunk ends before it must
        assert len(one) == max_items or (max_bytes is not None and sum(one) + other[0] > max_bytes)


@given(items=ITEMS, max_items=st.integers(1, 7))
async def test_asynchronous_sources_alike(items: list[int], max_items: int) -> None:
    async def source() -> AsyncIterator[int]:
        for item in items:
            yield item

    found = [chunk async for chunk in achunks(source(), max_items=max_items)]
    assert found == list(chunks(items, max_items=max_items))


class Row:
    """Something that can be watched."""


def test_one_chunk_in_memory() -> None:
    alive: weakref.WeakSet[Row] = weakref.WeakSet()

    def rows() -> Iterator[Row]:
        for _ in range(10_000):
            row = Row()
            alive.add(row)
            yield row

    peak = 0
    for chunk in chunks(rows(), max_items=100):
        peak = max(peak, len(alive))
        del chunk
    assert peak <= 201, "one chunk, and the next one's first row"


@pytest.mark.parametrize(
    "bounds", [{"max_items": 0}, {"max_items": 1, "max_bytes": 5}, {"max_items": 1, "max_bytes": 0}]
)
def test_bounds_that_are_none(bounds: dict[str, int]) -> None:
    with pytest.raises(SettingError):
        chunks([1], **bounds)  # type: ignore[arg-type]
    with pytest.raises(SettingError):
        achunks(None, **bounds)  # type: ignore[arg-type]
