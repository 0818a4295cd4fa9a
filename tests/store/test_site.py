"""Sites in the database: claim, wait, offer, release."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.store.conftest import started

from flatwater.errors import ConflictError, NotFoundError
from flatwater.store import Store, run, site, waiter
from flatwater.store.site import Change, SiteSpec, Want
from flatwater.store.tx import Tx
from flatwater.store.waiter import Grant

NOW = 1_800_000_000.0


async def hall(store: Store) -> None:
    """BUF: A_1 … A_12 and LANE: a stack of five; all free."""
    specs = [SiteSpec(id=f"A_{n}", group_name="BUF") for n in range(1, 13)]
    specs += [SiteSpec(id=f"L_{n}", group_name="LANE", lane="L", depth=n, mouths=1) for n in range(1, 6)]
    await store.writer.call(site.save, specs, NOW)


async def acquire(
    store: Store, want: Want, run_id: str, path: str = "-1/1", rank: float = 0.0, at: float = NOW
) -> str | None:
    found = await store.writer.call(site.acquire, want, run_id, path, rank, at)
    return None if found is None else found.id


async def parked(store: Store) -> str:
    new = await started(store)
    await store.writer.put(run.park(new.id, 1, "WAITING", None))
    return new.id


def chosen(grants: list[Grant]) -> list[tuple[str, str]]:
    return [(grant.run_id, msgspec.json.decode(grant.granted)["siteId"]) for grant in grants]


async def test_claims_go_in_natural_order(store: Store) -> None:
    await hall(store)
    want = Want(groups=("BUF",), filled=False)
    new = await started(store)
    taken = [await acquire(store, want, new.id, f"-1/{n}") for n in range(3)]
    assert taken == ["A_1", "A_2", "A_3"]
    assert await acquire(store, Want(groups=("BUF",), order="desc"), new.id, "-1/9") == "A_12"
    assert [one.id for one in await store.read(site.held, new.id)] == ["A_1", "A_2", "A_3", "A_12"]
    assert (await store.read(run.get, new.id)).locked is True


async def test_explicit_order_goes_before_natural_order(store: Store) -> None:
    await hall(store)
    await store.writer.call(site.save, [SiteSpec(id="A_7", order_no=-1)], NOW)
    assert await acquire(store, Want(groups=("BUF",)), (await started(store)).id) == "A_7"
    ids = [one.id for one in await store.read(site.page, "BUF")]
    assert ids == ["A_7", *(f"A_{n}" for n in range(1, 13) if n != 7)]


async def test_claiming_again_finds_the_same_site(store: Store) -> None:
    await hall(store)
    new = await started(store)
    want = Want(groups=("BUF",))
    first = await acquire(store, want, new.id)
    assert await acquire(store, want, new.id) == first
    assert len(await store.read(site.held, new.id)) == 1


async def test_only_looking_locks_nothing(store: Store) -> None:
    await hall(store)
    new = await started(store)
    assert await acquire(store, Want(groups=("BUF",), lock=False), new.id) == "A_1"
    assert await store.read(site.held, new.id) == []
    found = await store.read(site.find, Want(groups=("BUF",)))
    assert found is not None
    assert found.id == "A_1"
    assert await store.read(site.find, Want(groups=("NOWHERE",))) is None


@pytest.mark.parametrize(
    ("want", "expected"),
    [
        (Want(site_id="A_4"), "A_4"),
        (Want(content="SKU"), "A_5"),
        (Want(filled=True), "A_5"),
        (Want(groups=("BUF", "LANE"), order="desc"), "L_5"),
        (Want(groups=("LANE",), dense=True, filled=False), "L_5"),
        (Want(groups=("LANE",), dense=False), None),
        (Want(tags=("cold", "big")), "A_6"),
        (Want(map_id="m2"), "A_6"),
        (Want(site_id="A_3"), None),
        (Want(locked=True, lock=False), "A_2"),
    ],
)
async def test_what_suits(store: Store, want: Want, expected: str | None) -> None:
    await hall(store)
    await store.writer.call(
        site.save,
        [
            SiteSpec(id="A_5", filled=True, content="SKU"),
            SiteSpec(id="A_6", tags=("big", "cold", "new"), map_id="m2"),
            SiteSpec(id="A_3", enabled=False),
        ],
        NOW,
    )
    await store.writer.call(site.lock, "A_2", (await started(store)).id, None, None, NOW)
    assert await acquire(store, want, (await started(store)).id) == expected


async def test_a_place_counts_all_who_may_take_the_same_before(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="B", group_name="BUF"), SiteSpec(id="C", group_name="OUT")], NOW)
    owner = await started(store)
    for site_id in ("B", "C"):
        assert await acquire(store, Want(site_id=site_id), owner.id, f"-1/{site_id}") == site_id
    wants = {
        Want(groups=("BUF",), filled=False): 1,
        Want(filled=False): 2,
        Want(groups=("OUT",), filled=False): 2,
        Want(groups=("OUT",), filled=False, tags=("cold",)): 3,
        Want(groups=("BUF", "OUT")): 5,
        Want(groups=("OUT",), filled=True): 2,
        Want(filled=False, lock=False): 6,
        Want(locked=None, lock=False, groups=("HALL",)): 1,
        Want(dense=True, groups=("BUF",), content="bolts"): 4,
        Want(site_id="B", content="nuts", text="Q"): 7,
    }
    waiting = {}
    for position, want in enumerate(wants):
        waiting[want] = await parked(store)
        assert await acquire(store, want, waiting[want], at=NOW + position) is None
    assert {want: await store.read(waiter.place, run_id, "-1/1") for want, run_id in waiting.items()} == wants
    assert await store.read(waiter.place, waiting[Want(filled=False, lock=False)], "-1/1", 3) == 4, "the cap"


async def test_those_who_wait_are_served_by_rank_and_arrival(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S", group_name="G")], NOW)
    owner = await started(store)
    want = Want(groups=("G",))
    assert await acquire(store, want, owner.id) == "S"
    waiting = [await parked(store) for _ in range(4)]
    for position, (run_id, rank) in enumerate(zip(waiting, (5.0, 1.0, 1.0, 9.0), strict=True)):
        assert await acquire(store, want, run_id, rank=rank, at=NOW + position) is None
    assert [await store.read(waiter.place, run_id, "-1/1") for run_id in waiting] == [3, 1, 2, 4]
    order = []
    holder = owner.id
    for _ in waiting:
        ((holder, _),) = chosen(await store.writer.call(site.release, holder, NOW))
        order.append(holder)
    assert order == [waiting[1], waiting[2], waiting[0], waiting[3]]
    assert await store.read(run.ready_count, 99) == 4, "each was parked and is ready now"
    assert await store.writer.call(site.release, holder, NOW) == []


async def test_places_come_true(store: Store) -> None:
    """Two who want to take the same are first and second; who only looks is served with the next, in nobody's way."""
    await store.writer.call(site.save, [SiteSpec(id="S", group_name="G")], NOW)
    holder = (await started(store)).id
    assert await acquire(store, Want(site_id="S"), holder) == "S"
    take, look = Want(groups=("G",), filled=False), Want(groups=("G",), filled=False, lock=False)
    waiting = [await parked(store) for _ in range(6)]
    for position, want in enumerate((look, look, take, look, take, look)):
        assert await acquire(store, want, waiting[position], at=NOW + position) is None
    for expected in ([1, 1, 1, 2, 2, 3], [1, 1, 2], [1]):
        places = [await store.read(waiter.place, run_id, "-1/1") for run_id in waiting]
        assert places == expected
        served = [run_id for run_id, _ in chosen(await store.writer.call(site.release, holder, NOW))]
        assert served == waiting[: places.count(1)]
        waiting, holder = waiting[len(served) :], served[-1]
    assert waiting == []


async def test_a_granted_site_is_taken_at_the_next_activation(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S")], NOW)
    owner, other = await started(store), await started(store)
    await acquire(store, Want(site_id="S"), owner.id)
    await acquire(store, Want(site_id="S"), other.id)
    (grant,) = await store.writer.call(site.release, owner.id, NOW)
    assert (grant.run_id, grant.path, grant.worker) == (other.id, "-1/1", store.worker)
    assert await store.read(waiter.granted, store.worker) == [msgspec.structs.replace(grant, since=NOW)]
    assert await acquire(store, Want(site_id="S"), other.id) == "S"
    assert (await store.read(waiter.load, [other.id]))[other.id] == []
    assert await acquire(store, Want(site_id="S"), other.id) == "S"


async def test_whoever_cannot_be_served_blocks_nobody(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S", group_name="G")], NOW)
    owner = await started(store)
    await acquire(store, Want(site_id="S"), owner.id)
    hopeless = [Want(groups=("G",), content="X"), Want(groups=("G",), tags=("t",)), Want(groups=("G",), filled=True)]
    for number, want in enumerate(hopeless * 30):
        await acquire(store, want, (await parked(store)), rank=-float(number))
    last = await parked(store)
    await acquire(store, Want(groups=("H", "G"), filled=False), last, rank=99.0)
    assert chosen(await store.writer.call(site.release, owner.id, NOW)) == [(last, "S")]


async def test_each_kind_of_change_is_offered(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S", enabled=False, filled=True)], NOW)
    changes = [
        (Want(site_id="S", lock=False), Change(enabled=True)),
        (Want(filled=False, lock=False), Change(filled=False)),
        (Want(content="X", lock=False), Change(content="X")),
        (Want(tags=("t",), lock=False), Change(tags=("t",))),
    ]
    for want, change in changes:
        waiting = await parked(store)
        assert await acquire(store, want, waiting) is None
        assert chosen(await store.writer.call(site.set, "S", change, NOW)) == [(waiting, "S")]
    new = await parked(store)
    assert await acquire(store, Want(site_id="N"), new) is None
    assert chosen(await store.writer.call(site.save, [SiteSpec(id="N")], NOW)) == [(new, "N")]


async def test_a_stack_serves_one_at_a_time(store: Store) -> None:
    await hall(store)
    put, get = Want(groups=("LANE",), dense=True, filled=False), Want(groups=("LANE",), dense=True, filled=True)
    first, second, third = [await parked(store) for _ in range(3)]
    assert await acquire(store, put, first) == "L_5"
    assert await acquire(store, put, second, at=NOW + 1) is None
    assert await acquire(store, get, third, at=NOW + 2) is None
    assert await store.writer.call(site.set, "L_5", Change(filled=True, content="X"), NOW, first) == []
    assert chosen(await store.writer.call(site.unlock, "L_5", first, None, NOW)) == [(second, "L_4")]
    assert await store.writer.call(site.set, "L_4", Change(filled=True), NOW, second) == []
    assert chosen(await store.writer.call(site.release, second, NOW)) == [(third, "L_4")], (
        "the last in is the first out"
    )


async def test_setting_respects_the_owner(store: Store) -> None:
    await hall(store)
    owner, other = await started(store), await started(store)
    await store.writer.call(site.lock, "A_1", owner.id, "-1/1", "me", NOW)
    await store.writer.call(site.lock, "A_1", owner.id, "-1/2", "me", NOW)
    for call in (
        lambda tx: site.set(tx, "A_1", Change(filled=True), NOW, other.id),
        lambda tx: site.set_many(tx, ["A_2", "A_1"], Change(filled=True), NOW, other.id),
        lambda tx: site.lock(tx, "A_1", other.id, None, None, NOW),
        lambda tx: site.unlock(tx, "A_1", other.id, "somebody", NOW),
        lambda tx: site.remove(tx, ["A_1"]),
    ):
        with pytest.raises(ConflictError, match=owner.id):
            await store.writer.call(call)
    assert (await store.read(site.get, "A_2")).filled is False, "all or none"
    await store.writer.call(site.set, "A_1", Change(filled=True, attrs='{"w":1}'), NOW, owner.id)
    await store.writer.call(site.unlock, "A_1", other.id, "me", NOW)
    found = await store.read(site.get, "A_1")
    assert (found.filled, found.attrs, found.locked_run, found.locked_text) == (True, '{"w":1}', None, None)
    assert await store.writer.call(site.unlock, "A_1", other.id, None, NOW) == []
    await store.writer.call(site.remove, ["A_1"])
    with pytest.raises(NotFoundError, match="A_1"):
        await store.read(site.get, "A_1")


async def test_withdrawing_passes_a_grant_on(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S")], NOW)
    owner, first, second = await started(store), await parked(store), await parked(store)
    for position, run_id in enumerate((owner.id, first, second)):
        await acquire(store, Want(site_id="S"), run_id, at=NOW + position)
    assert chosen(await store.writer.call(site.release, owner.id, NOW)) == [(first, "S")]
    assert chosen(await store.writer.call(site.withdraw, first, "-1/1", NOW)) == [(second, "S")]
    assert await store.writer.call(site.withdraw, second, "nothing there", NOW) == []


async def test_orphans_are_swept(store: Store) -> None:
    await hall(store)

    async def owner(name: str, policy: str | None, state: str | None) -> None:
        new = await started(store, policy=policy)
        await store.writer.call(site.lock, name, new.id, "-1/1", None, NOW)
        if state:
            await store.writer.put(run.end(new.id, 1, state, NOW))

    await owner("A_1", None, "SUCCEEDED")
    await owner("A_2", '{"release":"never","retry":3}', "FAILED")
    await owner("A_3", '{"release":"failure"}', "FAILED")
    await owner("A_4", '{"release":"failure"}', "SUCCEEDED")
    await owner("A_5", None, None)
    await store.writer.call(site.lock, "A_6", "01ARZ3NDEKTSV4RRFFQ69G5FAV", None, None, NOW)
    await store.writer.call(site.lock, "A_7", "the foreman", None, None, NOW)
    waiting = await parked(store)
    await acquire(store, Want(site_id="A_6"), waiting)
    assert chosen(await store.writer.call(site.sweep, NOW)) == [(waiting, "A_6")]
    locked = {one.id for one in await store.read(site.page, None, True)}
    assert locked == {"A_2", "A_4", "A_5", "A_6", "A_7"}


async def test_every_change_is_in_the_log(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S")], NOW)
    new = await started(store)
    await acquire(store, Want(site_id="S", text="me"), new.id)
    await store.writer.call(site.set, "S", Change(filled=True, tags=("a",)), NOW + 1, new.id, "-1/2")
    await store.writer.call(site.release, new.id, NOW + 2)
    changes = await store.read(site.changes, "S")
    assert [msgspec.json.decode(change.change) for change in changes] == [
        {"locked_run": None, "was": new.id},
        {"filled": True, "tags": ["a"]},
        {"locked_run": new.id, "locked_path": "-1/1", "locked_text": "me"},
    ]
    assert [(change.run_id, change.at) for change in changes] == [(new.id, NOW + 2), (new.id, NOW + 1), (new.id, NOW)]
    assert await store.read(site.changes, "S", changes[0].id, 1) == changes[1:2]


async def test_pages_of_sites(store: Store) -> None:
    await hall(store)
    found: list[str] = []
    after = None
    while page := await store.read(site.page, None, None, None, after, 5):
        found += [one.id for one in page]
        after = found[-1]
    assert found == [*(f"A_{n}" for n in range(1, 13)), *(f"L_{n}" for n in range(1, 6))]


async def test_two_processes_never_share_a_site(store: Store, store_url: str, ledger: Any) -> None:
    await store.writer.call(site.save, [SiteSpec(id=f"S_{n}", group_name="G") for n in range(20)], NOW)
    async with Store.open(store_url, ledger=ledger) as other:
        runs = [await started(store) for _ in range(30)]
        claims = [
            (store if number % 2 else other).writer.call(site.acquire, Want(groups=("G",)), new.id, "-1/1", 0.0, NOW)
            for number, new in enumerate(runs)
        ]
        got = [found.id for found in await asyncio.gather(*claims) if found is not None]
        assert sorted(got) == sorted(f"S_{n}" for n in range(20))

        def everything(tx: Tx) -> list[str]:
            return [text for new in runs for grant in site.release(tx, new.id, NOW) for text in [grant.run_id]]

        assert len(await other.writer.call(everything)) == 10, "the ten that waited were served"
