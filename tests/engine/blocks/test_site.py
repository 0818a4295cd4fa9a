"""The site family, run for real: claims, waits, fairness, lanes, locks and their owners."""

from __future__ import annotations

from time import time
from typing import Any

import msgspec
import pytest

from flatwater.engine.blocks.site import describe
from flatwater.errors import DefinitionError
from flatwater.store import site as sites
from flatwater.store.site import Change, SiteSpec, Want
from flatwater.store.state import State
from tests.engine.blocks.conftest import Bench, Open, eventually, group
from tests.engine.conftest import Trace
from tests.engine.plan import b


def idle(id: int, **params: Any) -> dict[str, Any]:
    return b(id, "GetIdleSiteBp", {"groupName": "BUF", "lock": True, **params})


async def locked(bench: Bench, site_id: str, by: str | None = None) -> Any:
    """The site, if it is locked (by this run)."""
    site = await bench.site(site_id)
    return site if site.locked_run is not None and by in (None, site.locked_run) else None


async def free(bench: Bench, site_id: str, **change: Any) -> None:
    """Somebody outside sets a site."""
    grants = await bench.store.writer.call(sites.set, site_id, Change(**change), time(), None, None, True)
    bench.engine.scheduler.granted(grants)


async def test_the_first_suitable_site_is_locked_and_released_at_the_end(bench: Bench, trace: Trace) -> None:
    await bench.save_sites(*group("BUF", "A_10", "A_2", "A_1", order_no=1), *group("OTHER", "A_0"))
    await free(bench, "A_1", filled=True)
    run_id = await bench.submit(idle(1, filled=False), b(2, "Gate"), outputs={"site": "blocks.b1.siteId"})
    held = await eventually(lambda: locked(bench, "A_2"))
    assert (held.locked_run, held.locked_path) == (run_id, "-1/1")
    trace.gate.set()
    assert (await bench.engine.result(run_id, 60)).outputs == {"site": "A_2"}
    assert (await bench.site("A_2")).locked_run is None
    assert "siteId" not in (await bench.row(run_id)).outputs


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"orderDesc": True}, "B-2"),
        ({"content": "SKU-7"}, "A-2"),
        ({"filled": True}, "A-2"),
        ({"type": "cold"}, "B-1"),
        ({"type": ["cold", "high"]}, "B-2"),
        ({"mapId": "hall-2"}, "B-2"),
        ({"siteId": "B-1"}, "B-1"),
        ({"groupName": ["B", "C"]}, "B-1"),
        ({"groupName": "C,B", "orderDesc": "true"}, "B-2"),
    ],
)
async def test_what_suits(bench: Bench, params: dict[str, Any], found: str) -> None:
    await bench.save_sites(
        *group("A", "A-0", enabled=False),
        *group("A", "A-1"),
        *group("A", "A-2", filled=True, content="SKU-7"),
        *group("B", "B-1", tags=("cold",)),
        *group("B", "B-2", tags=("cold", "high"), map_id="hall-2"),
    )
    assert await bench.outputs(b(1, "GetIdleSiteBp", params), outputs={"site": "blocks.b1.siteId"}) == {"site": found}
    assert (await bench.site(found)).locked_run is None


async def test_a_run_waits_out_of_memory_and_gets_the_site_that_comes_free(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1", "A-2", filled=True))
    run_id = await bench.submit(idle(1, filled=False), outputs={"site": "blocks.b1.siteId"})
    row = await bench.until(run_id, State.WAITING)
    [wait] = msgspec.json.decode(row.wait)
    assert (wait["path"], wait["kind"], wait["reason"]) == ("-1/1", "site", "an empty site in group BUF")
    assert bench.engine.statistics().scheduler.active == 0
    await free(bench, "A-2", filled=False)
    assert (await bench.engine.result(run_id, 60)).outputs == {"site": "A-2"}
    assert await bench.waiters() == []
    assert (await bench.site("A-2")).locked_run is None


async def test_a_waiting_run_survives_a_restart_with_its_place(open_bench: Open) -> None:
    async with open_bench(park_after_s=0.05) as bench:
        await bench.save_sites(*group("BUF", "A-1", filled=True))
        first = await bench.submit(idle(1, filled=False), outputs={"site": "blocks.b1.siteId"}, label="first")
        await bench.until(first, State.WAITING)
        second = await bench.submit(idle(1, filled=False), b(2, "Await", {"event": "end"}), label="second")
        await bench.until(second, State.WAITING)
    async with open_bench(park_after_s=0.05) as bench:
        await free(bench, "A-1", filled=False)
        assert (await bench.engine.result(first, 60)).outputs == {"site": "A-1"}
        await eventually(lambda: locked(bench, "A-1", second))
        await bench.waits_for("event")
        await bench.engine.publish("end")
        assert (await bench.engine.result(second, 60)).state == State.SUCCEEDED


async def test_a_restart_in_the_middle_of_the_wait_keeps_what_was_granted_meanwhile(open_bench: Open) -> None:
    async with open_bench(park_after_s=60) as bench:  # the run stays in memory until the engine closes
        await bench.save_sites(*group("BUF", "A-1", filled=True))
        run_id = await bench.submit(idle(1, filled=False), outputs={"site": "blocks.b1.siteId"})
        await bench.waits_for("site")
        store = bench.store
        await store.writer.call(sites.set, "A-1", Change(filled=False), time(), None, None, True)  # nobody is told
    async with open_bench() as bench:
        assert (await bench.engine.result(run_id, 60)).outputs == {"site": "A-1"}


async def test_sites_go_by_priority_then_arrival(bench: Bench, trace: Trace) -> None:
    await bench.save_sites(*group("BUF", "A-1", filled=True))

    async def wait(value: str, **params: Any) -> str:
        blocks = idle(1, filled=False, **params), b(2, "Note", {"value": value})
        run_id = await bench.submit(*blocks, label=value)
        await bench.until(run_id, State.WAITING, State.FAILED)
        return run_id

    ids = [await wait("one"), await wait("two"), await wait("never", timeoutMs=1), await wait("urgent", priority=10)]
    await free(bench, "A-1", filled=False)
    for run_id in ids:
        await bench.engine.result(run_id, 60)
    assert [value for _, value in trace.calls] == ["urgent", "one", "two"]


@pytest.mark.parametrize("params", [{"timeoutMs": 100}, {"retryNum": 2, "retryPeriod": 50}, {"retryNum": 0}])
async def test_the_end_of_patience_is_a_clear_failure_and_leaves_no_row(bench: Bench, params: dict[str, Any]) -> None:
    await bench.save_sites(*group("BUF", "A-1", filled=True))
    error = await bench.error(idle(1, filled=False, content="SKU-1", **params))
    assert "there was no empty site with SKU-1 in group BUF within" in error
    assert "[-1/1]" in error
    assert await bench.waiters() == []
    await free(bench, "A-1", filled=False, content="SKU-1")
    assert (await bench.site("A-1")).locked_run is None


async def test_a_retried_block_waits_anew(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1", filled=True))
    retry = {"maxAttempts": 3, "delayMs": 10, "jitter": 0}
    run_id = await bench.submit({**idle(1, filled=False, timeoutMs=150), "retry": retry})
    began = time()
    result = await bench.engine.result(run_id, 60)
    assert result.state == State.FAILED
    assert time() - began > 0.4  # three waits, not one


async def test_a_run_canceled_while_it_waits_gives_up_its_place(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1", filled=True))
    run_id = await bench.submit(idle(1, filled=False))
    await bench.until(run_id, State.WAITING)
    await bench.engine.cancel(run_id)
    assert (await bench.engine.result(run_id, 60)).state == State.CANCELED
    assert await bench.waiters() == []
    await free(bench, "A-1", filled=False)
    assert (await bench.site("A-1")).locked_run is None


async def test_a_branch_stopped_while_it_waits_gives_up_its_place(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1", filled=True))
    waiting = b(3, "SerialFlowBp", default=[idle(4, filled=False)])
    stopping = b(5, "SerialFlowBp", default=[b(6, "DelayBp", {"timeMillis": 100}), b(7, "StopOtherBranch")])
    run_id = await bench.submit(b(2, "ParallelFlowBp", default=[waiting, stopping]), b(8, "Await", {"event": "end"}))
    await bench.waits_for("event")
    await free(bench, "A-1", filled=False)
    assert (await bench.site("A-1")).locked_run is None
    await bench.engine.publish("end")
    assert (await bench.engine.result(run_id, 60)).state == State.SUCCEEDED


async def test_many_runs_share_few_sites(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1", "A-2", "A-3"))
    blocks = (
        idle(1),
        b(2, "SetSiteFilledBp", {"siteId": "=blocks.b1.siteId"}),
        b(3, "SetSiteEmptyBp", {"siteId": "=blocks.b1.siteId"}),
        b(4, "SetSiteUnlockedBp", {"siteId": "=blocks.b1.siteId"}),
    )
    saved = await bench.submit(*blocks)
    definition = (await bench.row(saved)).definition_id
    ids = [saved, *[await bench.engine.submit(definition, {}) for _ in range(60)]]
    results = [await bench.engine.result(run_id, 60) for run_id in ids]
    assert {result.state for result in results} == {State.SUCCEEDED}, {result.error for result in results}
    assert await bench.waiters() == []


async def test_lock_false_only_looks(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1", filled=True))
    run_id = await bench.submit(
        idle(1, lock=False, filled=False), b(2, "Await", {"event": "end"}), outputs={"site": "blocks.b1.siteId"}
    )
    await bench.until(run_id, State.WAITING)
    await free(bench, "A-1", filled=False)
    await bench.waits_for("event")
    assert (await bench.site("A-1")).locked_run is None
    await bench.engine.publish("end")
    assert (await bench.engine.result(run_id, 60)).outputs == {"site": "A-1"}


async def test_lock_and_locked_exclude_each_other(bench: Bench) -> None:
    assert "lock and locked exclude each other" in await bench.error(idle(1, locked=True))


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"retryPeriod": "soon"}, "retryPeriod must be a whole number"),
        ({"retryPeriod": 0}, "retryPeriod does not fit"),
        ({"timeoutMs": -1}, "timeoutMs does not fit"),
        ({"filled": "perhaps"}, "filled must be true or false"),
    ],
)
async def test_bad_parameters_are_told_when_the_definition_is_saved(
    bench: Bench, params: dict[str, Any], where: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        await bench.submit(idle(1, **params))
    assert where in str(caught.value)
    assert "/rootBlock/children/default/0/inputParams/" in str(caught.value)


# ---- lanes ------------------------------------------------------------------------------------------


def lane(*, filled: tuple[int, ...] = ()) -> list[SiteSpec]:
    return [
        SiteSpec(id=f"L-{d}", group_name="LANE", lane="L", depth=d, mouths=1, filled=d in filled) for d in range(1, 5)
    ]


@pytest.mark.parametrize(("filled", "put", "got"), [((), "L-4", None), ((4,), "L-3", "L-4"), ((2, 3, 4), "L-1", "L-2")])
async def test_dense_lanes_are_filled_from_the_depth_and_emptied_from_the_mouth(
    bench: Bench, filled: tuple[int, ...], put: str, got: str | None
) -> None:
    await bench.save_sites(*lane(filled=filled))
    outputs = await bench.outputs(
        b(1, "GetIdleCrowdedSiteBp", {"groupName": "LANE", "filled": False, "retry": False}),
        b(2, "GetIdleCrowdedSiteBp", {"groupName": "LANE", "filled": True, "retry": False}),
        outputs={"put": "blocks.b1.siteId", "got": "blocks.b2.siteId"},
    )
    assert outputs == {"put": put, "got": got}


async def test_one_task_at_a_time_works_at_a_mouth(bench: Bench) -> None:
    await bench.save_sites(*lane())
    put = b(1, "GetIdleCrowdedSiteBp", {"groupName": "LANE", "filled": False, "lock": True})
    done = b(3, "SetSiteFilledBp", {"siteId": "=blocks.b1.siteId"})
    first = await bench.submit(put, b(2, "Await", {"event": "go"}), done, outputs={"site": "blocks.b1.siteId"})
    await bench.until(first, State.WAITING)
    second = await bench.submit(put, done, outputs={"site": "blocks.b1.siteId"}, label="second")
    [wait] = msgspec.json.decode((await bench.until(second, State.WAITING)).wait)
    assert wait["reason"] == "a cell to put into in group LANE"
    await bench.engine.publish("go")
    assert (await bench.engine.result(first, 60)).outputs == {"site": "L-4"}
    assert (await bench.engine.result(second, 60)).outputs == {"site": "L-3"}


# ---- setting, querying ------------------------------------------------------------------------------


async def test_setters_and_query(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1", "A-2"))
    site = {"siteId": "A-1"}
    outputs = await bench.outputs(
        b(1, "SetSiteFilledBp", site),
        b(2, "SetSiteContentBp", {**site, "content": "SKU-1"}),
        b(3, "SetSiteTagsBp", {**site, "tags": "cold, high"}),
        b(4, "SetSiteAttrBp", {**site, "attrName": "weight", "attrValue": "=12.5"}),
        b(5, "SetSiteAttrBp", {**site, "attrName": "owner", "attrValue": "ACME"}),
        b(6, "GetSiteAttrBp", {**site, "attrName": "weight"}),
        b(7, "QueryIdleSiteBp", {"groupName": "BUF", "content": "SKU-1"}),
        b(8, "SetSiteAttrBp", {**site, "attrName": "weight"}),
        b(9, "GetSiteAttrBp", {**site, "attrName": "weight"}),
        b(10, "SetSiteEmptyBp", site),
        b(11, "QueryIdleSiteBp", {"groupName": "BUF", "filled": True}),
        outputs={
            "weight": "blocks.b6.attrValue",
            "found": "blocks.b7.site",
            "gone": "blocks.b9.attrValue",
            "none": "blocks.b11.site",
        },
    )
    assert outputs["weight"] == 12.5
    assert outputs["gone"] is None
    assert outputs["none"] is None
    found = outputs["found"]
    assert found["siteId"] == "A-1"
    assert found["attrs"] == {"weight": 12.5, "owner": "ACME"}
    assert found["tags"] == ["cold", "high"]
    assert (found["filled"], found["content"], found["locked"]) == (True, "SKU-1", False)
    site_now = await bench.site("A-1")
    assert (site_now.filled, site_now.content) == (False, None)


async def test_a_batch_sets_all_or_nothing(bench: Bench) -> None:
    await bench.save_sites(*group("A", "A-1", "A-2", "A-3"), *group("B", "B-1"))
    batch = b(2, "BatchSettingSiteBp", {"siteIds": ["B-1"], "groupNames": "A", "filled": True, "content": "SKU"})
    outputs = await bench.outputs(batch, outputs={"ids": "blocks.b2.siteIdList"})
    assert outputs == {"ids": ["B-1", "A-1", "A-2", "A-3"]}
    assert {(await bench.site(each)).content for each in outputs["ids"]} == {"SKU"}
    holder = await bench.submit(b(1, "SetSiteLockedBp", {"siteId": "A-3"}), b(2, "Await", {"event": "end"}))
    await bench.until(holder, State.WAITING)
    error = await bench.error(b(2, "BatchSettingSiteBp", {"groupNames": "A", "filled": False}), label="batch")
    assert f"site 'A-3' is locked by {holder}" in error
    assert {(await bench.site(each)).filled for each in outputs["ids"]} == {True}
    assert "neither filled nor content" in await bench.error(b(1, "BatchSettingSiteBp", {"groupNames": "A"}))
    await bench.engine.publish("end")
    assert (await bench.engine.result(holder, 60)).state == State.SUCCEEDED


@pytest.mark.parametrize("kind", ["SetSiteFilledBp", "SetSiteEmptyBp", "SetSiteLockedBp", "SetSiteUnlockedBp"])
async def test_a_site_that_does_not_exist_is_named(bench: Bench, kind: str) -> None:
    assert "site 'NOWHERE'" in await bench.error(b(1, kind, {"siteId": "NOWHERE"}))


# ---- locks ------------------------------------------------------------------------------------------


async def test_locks_have_owners(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1"))
    lock = b(1, "SetSiteLockedBp", {"siteId": "A-1", "lockedId": "shift-1"})
    holder = await bench.submit(lock, b(2, "Await", {"event": "end"}), label="holder")
    await bench.until(holder, State.WAITING)
    for kind in ("SetSiteLockedBp", "SetSiteUnlockedBp", "SetSiteFilledBp"):
        error = await bench.error(b(1, kind, {"siteId": "A-1"}), label="other")
        assert f"site 'A-1' is locked by {holder}" in error
    listed = await bench.outputs(
        b(1, "GetLockedSitesByTaskRecordIdBp", {"taskRecordId": holder}),
        outputs={"sites": "blocks.b1.lockedSiteIdList"},
        label="list",
    )
    assert listed == {"sites": ["A-1"]}
    unlock = b(1, "SetSiteUnlockedBp", {"siteId": "A-1", "unLockedId": "shift-1"})
    await bench.outputs(unlock, label="named")
    assert (await bench.site("A-1")).locked_run is None
    await bench.engine.publish("end")
    assert (await bench.engine.result(holder, 60)).state == State.SUCCEEDED


async def test_an_unlock_hands_the_site_to_who_waits_for_it(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1"))
    lock = b(1, "SetSiteLockedBp", {"siteId": "A-1"})
    blocks = lock, b(2, "Await", {"event": "go"}), b(3, "SetSiteUnlockedBp", {"siteId": "A-1"})
    holder = await bench.submit(*blocks, b(4, "Await", {"event": "end"}), label="holder")
    await bench.until(holder, State.WAITING)
    patient = b(1, "SetSiteLockedBp", {"siteId": "A-1", "retryTimes": 30})
    other = await bench.submit(patient, outputs={"ok": "blocks.b1.success"}, label="other")
    await bench.until(other, State.WAITING)
    await bench.engine.publish("go")
    assert (await bench.engine.result(other, 60)).outputs == {"ok": True}
    await bench.engine.publish("end")
    assert (await bench.engine.result(holder, 60)).state == State.SUCCEEDED


async def test_sites_stay_locked_when_the_definition_says_so(bench: Bench) -> None:
    await bench.save_sites(*group("BUF", "A-1"))
    run_id = await bench.submit(idle(1), releaseOnEnd="never")
    assert (await bench.engine.result(run_id, 60)).state == State.SUCCEEDED
    assert (await bench.site("A-1")).locked_run == run_id


@pytest.mark.parametrize(
    ("want", "words"),
    [
        (Want(groups=("BUF",), filled=False), "an empty site in group BUF"),
        (Want(groups=("A", "B"), filled=True, content="SKU-1"), "a filled site with SKU-1 in groups A, B"),
        (Want(site_id="A-1"), "the site A-1"),
        (Want(), "a site"),
        (Want(groups=("L",), dense=True, filled=True), "a load to take in group L"),
        (Want(tags=("cold",), map_id="m"), "a site tagged cold on map m"),
    ],
)
def test_waits_are_told_in_words(want: Want, words: str) -> None:
    assert describe(want) == words
