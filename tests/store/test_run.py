"""The life of runs: queue, park and wake, requests, retry, lists."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.store.conftest import new_run, started

from flatwater.errors import ConflictError, FencedError, NotFoundError
from flatwater.store import Store, run, step, waiter
from flatwater.store.ident import new_id
from flatwater.store.run import RunFilter
from flatwater.store.state import RUN_STATES, State

NOW = 1_800_000_000.0


async def insert(store: Store, **fields: object) -> run.NewRun:
    new = new_run(**fields)
    await store.writer.put(run.insert(new))
    return new


async def test_a_key_is_one_run(store: Store) -> None:
    first = await store.writer.call(run.submit, new_run(out_order_no="k", inputs='{"a":1}'))
    again = await store.writer.call(run.submit, new_run(out_order_no="k", inputs='{"a":1}'))
    assert (first.created, again.created) == (True, False)
    assert again.id == first.id == await store.read(run.find, "k")
    for other in (new_run(out_order_no="k", inputs='{"a":2}'), new_run(out_order_no="k", definition_id="x")):
        with pytest.raises(ConflictError, match=first.id):
            await store.writer.call(run.submit, other)
    assert await store.read(run.count) == {"QUEUED": 1}


async def test_a_key_submitted_at_the_same_time_is_one_run(store: Store) -> None:
    done = await asyncio.gather(*(store.writer.call(run.submit, new_run(out_order_no="k")) for _ in range(20)))
    assert len({one.id for one in done}) == 1
    assert [one.created for one in done].count(True) == 1


async def test_a_running_run_may_take_a_free_key(store: Store) -> None:
    one, other = await started(store), await started(store)
    await store.writer.call(run.set_out_order_no, one.id, 1, "k")
    await store.writer.call(run.set_out_order_no, one.id, 1, "k")
    with pytest.raises(ConflictError, match=one.id):
        await store.writer.call(run.set_out_order_no, other.id, 1, "k")
    with pytest.raises(FencedError):
        await store.writer.call(run.set_out_order_no, other.id, 5, "free")


async def test_claims_go_by_rank_and_then_by_arrival(store: Store) -> None:
    ranks = [5.0, 1.0, 3.0, 3.0, 3.0, -2.0]
    new = [await insert(store, rank=rank) for rank in ranks]
    assert await store.read(run.ready_count, 4) == 4
    first = await store.writer.call(run.claim, 4, store.worker, NOW)
    second = await store.writer.call(run.claim, 4, store.worker, NOW)
    assert [one.id for one in first] == [new[i].id for i in (5, 1, 2, 3)]
    assert [one.id for one in second] == [new[i].id for i in (4, 0)]
    assert await store.writer.call(run.claim, 4, store.worker, NOW) == []
    assert (first[0].epoch, first[0].activated, first[0].started_at) == (1, False, NOW)
    row = await store.read(run.get, new[0].id)
    assert (row.state, row.queue, row.worker, row.epoch) == ("RUNNING", None, store.worker, 1)


async def test_due_runs_become_ready_in_time(store: Store) -> None:
    late, soon = await insert(store, queue="due", due_at=NOW + 9), await insert(store, queue="due", due_at=NOW + 5)
    assert await store.read(run.next_due) == NOW + 5
    assert await store.writer.call(run.promote_due, NOW + 4, 10) == 0
    assert await store.writer.call(run.promote_due, NOW + 20, 1) == 1
    assert [one.id for one in await store.writer.call(run.claim, 9, store.worker, NOW)] == [soon.id]
    assert await store.writer.call(run.promote_due, NOW + 20, 9) == 1
    assert [one.id for one in await store.writer.call(run.claim, 9, store.worker, NOW)] == [late.id]
    assert await store.read(run.next_due) is None


async def test_a_parked_run_sleeps_until_woken(store: Store) -> None:
    new = await started(store)
    await store.writer.put(run.park(new.id, 1, "WAITING", '{"for":"site"}'))
    row = await store.read(run.get, new.id)
    assert (row.state, row.queue, row.worker, row.wait) == ("WAITING", None, None, '{"for":"site"}')
    await store.writer.put(run.wake(new.id))
    (claimed,) = await store.writer.call(run.claim, 9, store.worker, NOW)
    assert (claimed.id, claimed.epoch, claimed.activated) == (new.id, 2, True)
    with pytest.raises(FencedError):
        await store.writer.put(run.end(new.id, 1, "SUCCEEDED", NOW))


async def test_a_parked_run_wakes_when_due(store: Store) -> None:
    new = await started(store)
    await store.writer.put(run.park(new.id, 1, "WAITING", None, NOW + 2))
    assert await store.read(run.next_due) == NOW + 2
    await store.writer.call(run.promote_due, NOW + 2, 9)
    assert (await store.read(run.get, new.id)).state == "QUEUED"


@pytest.mark.parametrize("early", ["grant", "request"])
async def test_no_wake_is_lost_while_parking(store: Store, early: str) -> None:
    new = await started(store)
    await store.writer.put(waiter.put(new.id, "-1/1", "event", "go", NOW, NOW))
    if early == "grant":
        (grant,) = await store.writer.call(waiter.grant, "event", "go", '"data"')
        assert grant.worker == store.worker
    else:
        assert not (await store.writer.call(run.request, new.id, "cancel", NOW)).done
    await store.writer.put(run.park(new.id, 1, "WAITING", None))
    row = await store.read(run.get, new.id)
    assert (row.state, row.queue) == ("QUEUED", "ready")


async def test_wake_leaves_others_alone(store: Store) -> None:
    running, paused = await started(store), await started(store)
    await store.writer.put(run.ask(paused.id, 1, "pause"), run.park(paused.id, 1, "PAUSED", None))
    await store.writer.put(run.wake(running.id), run.wake(paused.id), run.wake(new_id()))
    states = await store.read(run.states, [running.id, paused.id])
    assert states == {running.id: "RUNNING", paused.id: "PAUSED"}


async def test_a_retry_with_back_off_is_a_due_time(store: Store) -> None:
    new = await started(store)
    await store.writer.put(run.again(new.id, 1, 1, NOW + 60, NOW + 60, "boom", "-1/2", "block"))
    row = await store.read(run.get, new.id)
    assert (row.state, row.queue, row.due_at, row.attempt, row.error) == ("QUEUED", "due", NOW + 60, 1, "boom")
    assert row.worker is None


async def test_end_clears_the_queue_and_keeps_the_outcome(store: Store) -> None:
    new = await started(store)
    store.writer.put(run.mark(new.id, 1, "WAITING", '{"x":1}'), run.respond(new.id, 1, '{"ok":true}'))
    await store.writer.put(run.end(new.id, 1, "FAILED", NOW, None, "boom", "-1/4", "block"))
    row = await store.read(run.get, new.id)
    assert (row.state, row.ended_at, row.error, row.error_path, row.error_kind) == (
        "FAILED",
        NOW,
        "boom",
        "-1/4",
        "block",
    )
    assert (row.worker, row.queue, row.wait, row.response) == (None, None, None, '{"ok":true}')


async def test_requests_reach_the_worker_that_has_the_run(store: Store) -> None:
    new = await started(store)
    asked = await store.writer.call(run.request, new.id, "cancel", NOW)
    assert (asked.worker, asked.done) == (store.worker, False)
    assert await store.read(run.requests, store.worker) == [(new.id, "cancel")]
    assert await store.read(run.requests, "somebody else") == []
    await store.writer.call(run.resume, new.id, NOW)
    assert await store.read(run.requests, store.worker) == []


async def test_what_never_ran_is_canceled_at_once(store: Store) -> None:
    queued, delayed = await insert(store), await insert(store, queue="due", due_at=NOW)
    for new in (queued, delayed):
        assert (await store.writer.call(run.request, new.id, "cancel", NOW)).done
        row = await store.read(run.get, new.id)
        assert (row.state, row.queue, row.ended_at, row.due_at) == ("CANCELED", None, NOW, None)
        with pytest.raises(ConflictError, match="has ended"):
            await store.writer.call(run.request, new.id, "cancel", NOW)
    assert await store.writer.call(run.claim, 9, store.worker, NOW) == []


async def test_a_parked_run_is_made_ready_to_clean_up_after_itself(store: Store) -> None:
    new = await started(store)
    await store.writer.put(run.park(new.id, 1, "WAITING", None, NOW + 99))
    assert not (await store.writer.call(run.request, new.id, "cancel", NOW)).done
    (claimed,) = await store.writer.call(run.claim, 9, store.worker, NOW)
    assert (claimed.id, claimed.request) == (new.id, "cancel")


async def test_cancel_of_a_parked_run_in_the_store(store: Store) -> None:
    new = await started(store)
    child = await insert(store, parent_id=new.id, parent_path="-1/2")
    store.writer.put(
        step.put(new.id, "-1/1", 1, "a", "T", "SUCCEEDED", 1, 1.0, 2.0),
        step.put(new.id, "-1/2", 2, "b", "T", "WAITING", 1, 1.0, None),
        waiter.put(new.id, "-1/2", "child", child.id, NOW, NOW),
    )
    with pytest.raises(ConflictError, match="in worker"):
        await store.writer.call(run.cancel, new.id, NOW)
    await store.writer.put(run.park(new.id, 1, "WAITING", None))
    done = await store.writer.call(run.cancel, new.id, NOW)
    assert done.children == [child.id]
    steps = {found.path: found.state for found in (await store.read(step.load, [new.id]))[new.id]}
    assert steps == {"-1/1": "SUCCEEDED", "-1/2": "CANCELED"}
    assert (await store.read(waiter.load, [new.id]))[new.id] == []
    assert (await store.read(run.get, new.id)).state == "CANCELED"


async def test_pause_and_resume(store: Store) -> None:
    queued, parked = await insert(store), await started(store)
    await store.writer.put(run.park(parked.id, 1, "WAITING", None))
    for new in (queued, parked):
        assert (await store.writer.call(run.request, new.id, "pause", NOW)).done
    assert await store.writer.call(run.claim, 9, store.worker, NOW) == []
    for new in (queued, parked):
        await store.writer.call(run.resume, new.id, NOW)
    assert len(await store.writer.call(run.claim, 9, store.worker, NOW)) == 2
    ended = await started(store)
    await store.writer.put(run.end(ended.id, 1, "SUCCEEDED", NOW))
    with pytest.raises(ConflictError, match="not PAUSED"):
        await store.writer.call(run.resume, ended.id, NOW)


async def test_retry_keeps_what_succeeded(store: Store) -> None:
    new = await started(store)
    for path, state in (("-1/1", "SUCCEEDED"), ("-1/2", "FAILED"), ("-1/3", "CANCELED"), ("-1", "FAILED")):
        store.writer.put(step.put(new.id, path, 1, "b", "T", state, 1, 1.0, 2.0))
    with pytest.raises(ConflictError, match="RUNNING"):
        await store.writer.call(run.retry, new.id, NOW)
    await store.writer.put(run.end(new.id, 1, "FAILED", NOW, None, "boom"))
    await store.writer.call(run.retry, new.id, NOW)
    assert [found.path for found in (await store.read(step.load, [new.id]))[new.id]] == ["-1/1"]
    (claimed,) = await store.writer.call(run.claim, 9, store.worker, NOW)
    row = await store.read(run.get, new.id)
    assert (claimed.id, claimed.epoch, claimed.attempt, row.ended_at, row.error) == (new.id, 2, 1, None, None)


@pytest.mark.parametrize("call", [run.resume, run.retry, run.cancel])
async def test_unknown_runs_are_named(sqlite_store: Store, call: object) -> None:
    with pytest.raises(NotFoundError, match="01ABC"):
        await sqlite_store.writer.call(call, "01ABC", NOW)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="01ABC"):
        await sqlite_store.read(run.get, "01ABC")


async def test_pages_are_complete_and_newest_first(store: Store) -> None:
    new = [await insert(store, label=f"L{n % 3}", definition_id=f"d{n % 2}") for n in range(25)]
    await store.writer.call(run.claim, 7, store.worker, NOW)
    every = await pages(store, RunFilter(), 4)
    assert every == [one.id for one in reversed(new)]
    both = await pages(store, RunFilter(states=("QUEUED", "RUNNING")), 4)
    assert both == every
    running = await pages(store, RunFilter(states=("RUNNING",)), 3)
    assert running == [one.id for one in reversed(new[:7])]
    some = await pages(store, RunFilter(label="L1", definition="d0", states=("QUEUED", "FAILED")), 2)
    assert some == [one.id for n, one in reversed(list(enumerate(new))) if n % 3 == 1 and n % 2 == 0 and n >= 7]
    assert (await store.read(run.count)) == {"QUEUED": 18, "RUNNING": 7}
    assert (await store.read(run.count, 5)) == {"QUEUED": 5, "RUNNING": 5}


async def pages(store: Store, wanted: RunFilter, size: int) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = await store.read(run.page, wanted, after, size)
        assert len(page.items) <= size
        found += [item.id for item in page.items]
        if page.next is None:
            return found
        after = page.next


async def test_filters(store: Store) -> None:
    parent = await insert(store)
    child = await insert(store, parent_id=parent.id, trigger_id="t", out_order_no="k")
    filters = (RunFilter(parent=parent.id), RunFilter(trigger="t"), RunFilter(out_order_no="k"))
    for wanted in filters:
        assert await pages(store, wanted, 9) == [child.id]
    assert [one.id for one in await store.read(run.children, parent.id)] == [child.id]
    middle = time.time()
    await asyncio.sleep(0.01)
    later = await insert(store)
    assert await pages(store, RunFilter(since=middle), 9) == [later.id]
    assert await pages(store, RunFilter(until=middle), 9) == [child.id, parent.id]


async def test_every_state_can_be_stored(store: Store) -> None:
    for state in RUN_STATES:
        await insert(store, state=state, queue=None)
    assert await store.read(run.count) == dict.fromkeys(RUN_STATES, 1)
    assert State.SKIPPED not in RUN_STATES


async def test_a_pause_withdrawn_while_blocks_end_holds_nothing(store: Store) -> None:
    new = await started(store)
    await store.writer.put(run.ask(new.id, 1, "pause"))
    await store.writer.call(run.resume, new.id, NOW)
    await store.writer.put(run.park(new.id, 1, "PAUSED", None))
    row = await store.read(run.get, new.id)
    assert (row.state, row.queue) == ("QUEUED", "ready")


async def test_a_cancel_on_record_is_not_taken_back_by_a_pause(store: Store) -> None:
    new = await started(store)
    await store.writer.put(run.ask(new.id, 1, "cancel"))
    await store.writer.put(run.ask(new.id, 1, "pause"))
    assert await store.read(run.requests, store.worker) == [(new.id, "cancel")]
    await store.writer.put(run.end(new.id, 1, "CANCELED", NOW))
    await store.writer.put(run.ask(new.id, 1, "pause"))
    row = await store.read(run.get, new.id)
    assert (row.state, row.request) == ("CANCELED", None)


async def test_a_delay_lasts_through_a_pause(store: Store) -> None:
    late, past = await insert(store, queue="due", due_at=NOW + 9), await insert(store, queue="due", due_at=NOW - 9)
    for new in (late, past):
        assert (await store.writer.call(run.request, new.id, "pause", NOW)).done
        assert (await store.read(run.get, new.id)).state == "PAUSED"
    assert await store.read(run.next_due) is None
    for new in (late, past):
        await store.writer.call(run.resume, new.id, NOW)
    rows = [await store.read(run.get, new.id) for new in (late, past)]
    assert [(row.state, row.queue, row.due_at) for row in rows] == [
        ("QUEUED", "due", NOW + 9),
        ("QUEUED", "ready", None),
    ]


async def test_a_queued_child_that_is_canceled_tells_its_parent(store: Store) -> None:
    parent = await started(store)
    child = await insert(store, parent_id=parent.id, parent_path="-1/1")
    await store.writer.call(waiter.add, waiter.Waiter(parent.id, "-1/1", "child", child.id, NOW, NOW))
    await store.writer.put(run.park(parent.id, 1, "WAITING", None))
    requested = await store.writer.call(run.request, child.id, "cancel", NOW)
    assert [(grant.run_id, grant.path) for grant in requested.grants] == [(parent.id, "-1/1")]
    assert '"CANCELED"' in requested.grants[0].granted
    assert (await store.read(run.get, parent.id)).state == "QUEUED"


async def test_a_grant_that_was_used_does_not_wake(store: Store) -> None:
    new = await started(store)
    await store.writer.put(waiter.put(new.id, "-1/1", "event", "go", NOW, NOW))
    await store.writer.call(waiter.grant, "event", "go", '"data"')
    await store.writer.put(waiter.taken(new.id, "-1/1"), run.park(new.id, 1, "WAITING", None))
    assert (await store.read(run.get, new.id)).state == "WAITING"
    assert (await store.read(waiter.load, [new.id]))[new.id][0].granted == '"data"'


async def test_what_a_worker_lost_sight_of_can_be_given_back(store: Store) -> None:
    lost, moved = await started(store), await started(store)
    held = await store.read(run.owned, store.worker)
    await store.writer.put(run.park(moved.id, 1, "WAITING", None), run.wake(moved.id))
    await store.writer.call(run.claim, 1, store.worker, NOW)
    assert await store.writer.call(run.requeue, store.worker, held) == [lost.id]
    assert await store.read(run.states, [lost.id, moved.id]) == {lost.id: "QUEUED", moved.id: "RUNNING"}


async def test_one_run_may_be_claimed_out_of_turn(store: Store) -> None:
    first, second = await insert(store, rank=1.0), await insert(store, rank=2.0)
    claimed = await store.writer.call(run.claim, 1, store.worker, NOW, second.id)
    assert [one.id for one in claimed] == [second.id]
    assert await store.writer.call(run.claim, 1, store.worker, NOW, second.id) == []
    assert [one.id for one in await store.writer.call(run.claim, 9, store.worker, NOW)] == [first.id]
