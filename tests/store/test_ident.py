"""Ids rise, tell their time, and are derived alike for the same child."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.store import ident


def test_ids_rise_strictly_and_are_ulids() -> None:
    ids = [ident.new_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    assert all(ident.is_id(run_id) for run_id in ids)


def test_ids_of_several_threads_are_different() -> None:
    make, found = ident.Ident(), []
    threads = [threading.Thread(target=lambda: found.extend(make() for _ in range(2000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8000


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time()
    at = ident.created_at(ident.new_id())
    assert before - 0.002 <= at <= time.time() + 0.1


@given(st.floats(min_value=0, max_value=2**47 / 1000), st.floats(min_value=0, max_value=2**47 / 1000))
def test_bounds_order_like_times(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert ident.lower_bound(low) <= ident.lower_bound(high)
    assert ident.created_at(ident.lower_bound(low)) == int(low * 1000) / 1000


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_child_has_one_id(path: str, other: str) -> None:
    parent = ident.new_id()
    child = ident.child_id(parent, path)
    assert ident.is_id(child)
    assert child[:10] == parent[:10]
    assert (child == ident.child_id(parent, other)) == (path == other)


@pytest.mark.parametrize("text", ["", "x" * 26, "8" + "0" * 25, "0" * 25, "0" * 25 + "U"])
def test_what_is_no_id_is_refused(text: str) -> None:
    assert not ident.is_id(text)
    with pytest.raises(ValueError, match="is not a run id"):
        ident.created_at(text)
