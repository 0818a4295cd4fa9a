"""Matching, natural order and the rules of lanes, as pure functions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flatwater.store.site import Site, Want
from flatwater.store.site_lane import get_cell, put_cell
from flatwater.store.site_match import compete, compete_under_key, key_of, keys_for, natural_key, suits

SKUS = (None, "SKU-1", "SKU-2", "*", "=|*")
names = st.sampled_from(["A_1", "A_2", "B|1", "*"])


def site(name: str = "A_1", **fields: object) -> Site:
    base = dict.fromkeys(Site.__struct_fields__)
    base |= {"id": name, "order_no": 0, "sort_key": natural_key(name), "enabled": True, "filled": False, "tags": ()}
    return Site(**{**base, "updated_at": 0.0, **fields})  # type: ignore[arg-type]


def lane(text: str, mouths: int = 1) -> list[Site]:
    """Cells from mouth 1 inwards: . free, x filled, p / g locked by a put / a get, m locked by hand, d disabled."""
    cells = []
    for depth, char in enumerate(text, 1):
        mouth = {"p": 1, "g": 2 if mouths == 2 else 1}.get(char)
        owner = "run" if char in "pgm" else None
        cells.append(
            site(
                f"L_{depth}", lane="L", depth=depth, mouths=mouths, filled=char in "xg", enabled=char != "d",
                locked_run=owner, locked_mouth=mouth,
            )
        )  # fmt: skip
    return cells


def depths(text: str, mouths: int = 1) -> tuple[int | None, int | None]:
    cells = lane(text, mouths)
    put, get = put_cell(cells), get_cell(cells)
    return (put.depth if put else None), (get.depth if get else None)


def test_natural_order() -> None:
    shuffled = ["A_10", "B_1", "A_2", "A_1", "A_02b", "A_100"]
    assert sorted(shuffled, key=natural_key) == ["A_1", "A_2", "A_02b", "A_10", "A_100", "B_1"]


def test_a_stack_fills_from_its_depth_and_empties_from_its_mouth() -> None:
    assert depths(".....") == (5, None)
    assert depths("....x") == (4, 5)
    assert depths("...xx") == (3, 4)
    assert depths("xxxxx") == (None, 1)
    assert depths(".x...") == (1, 2), "what lies behind a load cannot be reached"


def test_one_task_at_a_time_in_a_stack() -> None:
    assert depths("...px") == (None, None)
    assert depths("...gx") == (None, None)


def test_a_lock_by_hand_is_an_obstacle_only() -> None:
    assert depths("..m.x") == (2, None)
    assert depths("..d.x") == (2, None)


def test_a_queue_is_filled_at_one_mouth_and_emptied_at_the_other() -> None:
    assert depths(".....", 2) == (5, None)
    assert depths("...xx", 2) == (3, 5)
    assert depths("xxx..", 2) == (None, 3)
    assert depths("...px", 2) == (None, 5), "a put at mouth 1 does not stop a get at mouth 2"
    assert depths("...xg", 2) == (3, None), "a get at mouth 2 does not stop a put at mouth 1"


@given(st.text("..xpgmd", max_size=7), st.sampled_from([1, 2]))
def test_what_a_lane_offers_can_be_reached(text: str, mouths: int) -> None:
    put, get = depths(text, mouths)
    if put is not None:
        assert set(text[:put]) == {"."}
        assert put == len(text) or text[put] != ".", "there is no deeper one"
    if get is not None:
        way = text[: get - 1] if mouths == 1 else text[get:]
        assert text[get - 1] == "x"
        assert set(way) <= {"."}


wants = st.builds(
    Want, site_id=st.none() | names, groups=st.lists(names, max_size=2).map(tuple), filled=st.none() | st.booleans(),
    content=st.sampled_from(SKUS), dense=st.none() | st.booleans(), tags=st.just(()),
    locked=st.sampled_from([False, False, True, None]),
)  # fmt: skip
sites = st.builds(
    site, names, group_name=st.none() | names, filled=st.booleans(), content=st.sampled_from(SKUS),
    lane=st.none() | st.just("L"), locked_run=st.none() | st.just("r"), enabled=st.just(True),
)  # fmt: skip


@given(wants, sites)
def test_a_site_is_offered_under_the_key_of_every_want_it_suits(want: Want, candidate: Site) -> None:
    keys = keys_for(candidate, lane=bool(want.dense))
    assert len(keys) == len(set(keys)) <= 18
    if suits(want, candidate) and not (want.dense and want.locked is not False):
        assert key_of(want) in keys


@given(wants, wants)
def test_wants_of_one_key_ask_for_the_same(one: Want, other: Want) -> None:
    if key_of(one) == key_of(other) and one.locked is False and other.locked is False:
        assert (one.site_id, one.filled, one.content) == (other.site_id, other.filled, other.content)


@given(wants, wants, sites)
def test_whoever_may_take_a_site_before_is_counted(want: Want, ahead: Want, candidate: Site) -> None:
    if suits(want, candidate) and suits(ahead, candidate) and ahead.claims and want.locked is False:
        assert compete(want, ahead)


@given(wants, wants, wants)
def test_what_a_key_rules_out_competes_with_none_under_it(want: Want, ahead: Want, sample: Want) -> None:
    if key_of(ahead) == key_of(sample) and compete(want, ahead):
        assert compete_under_key(want, sample)


def test_those_who_can_never_meet_do_not_compete() -> None:
    empty = Want(groups=("BUF",), filled=False)
    others = [Want(groups=("OUT",)), Want(filled=True), Want(filled=False, lock=False)]
    assert not any(compete(empty, other) for other in others)
    assert not compete(Want(locked=True, lock=False), Want()), "it looks among the locked"


def test_long_names_still_make_a_key() -> None:
    want = Want(site_id="s" * 255, groups=("g" * 255,), content="c" * 255)
    keys = keys_for(site("s" * 255, group_name="g" * 255, content="c" * 255), lane=False)
    assert key_of(want) in keys
    assert max(map(len, keys)) <= 255
