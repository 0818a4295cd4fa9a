"""Waiters: children, events, time-outs that race with grants, places in the queue."""

from __future__ import annotations

import msgspec
import pytest
from tests.store.conftest import new_run, started

from flatwater.errors import NotFoundError
from flatwater.store import Store, event, run, trigger, waiter
from flatwater.store.trigger import Trigger
from flatwater.store.waiter import Waiter

NOW = 1_800_000_000.0


def waits(run_id: str, kind: str, key: str, path: str = "-1/1", since: float = NOW, rank: float = 0.0) -> Waiter:
    return Waiter(run_id, path, kind, key, since, rank)


async def test_a_childs_end_wakes_its_parked_parent(store: Store) -> None:
    parent = await started(store)
    child = await started(store, parent_id=parent.id)
    assert await store.writer.call(waiter.add, waits(parent.id, "child", child.id)) is None
    store.writer.put(run.park(parent.id, 1, "WAITING", None))
    granted = waiter.outcome("SUCCEEDED", '{"x":1}', None, None)
    end = run.end(child.id, 1, "SUCCEEDED", NOW, '{"x":1}')
    await store.writer.put(end, *waiter.child_ended(child.id, parent.id, granted))
    (row,) = (await store.read(waiter.load, [parent.id]))[parent.id]
    assert msgspec.json.decode(row.granted or "") == {
        "state": "SUCCEEDED", "outputs": {"x": 1}, "error": None, "error_kind": None,
    }  # fmt: skip
    assert (await store.read(run.get, parent.id)).queue == "ready"


async def test_a_child_that_ended_before_is_granted_at_once(store: Store) -> None:
    parent, child = await started(store), await started(store)
    await store.writer.put(run.end(child.id, 1, "FAILED", NOW, None, "boom", "-1", "block"))
    granted = await store.writer.call(waiter.add, waits(parent.id, "child", child.id))
    assert granted == waiter.outcome("FAILED", None, "boom", "block")
    assert await store.writer.call(waiter.take, parent.id, "-1/1") == granted
    assert await store.writer.call(waiter.take, parent.id, "-1/1") is None


async def test_waiting_again_for_a_child_does_not_lose_its_outcome(store: Store) -> None:
    parent, child = await started(store), await started(store)
    await store.writer.call(waiter.add, waits(parent.id, "child", child.id))
    await store.writer.put(run.end(child.id, 1, "SUCCEEDED", NOW, "1"))
    assert await store.writer.call(waiter.add, waits(parent.id, "child", child.id)) is not None


async def test_keys_are_told_once_each_while_somebody_waits(store: Store) -> None:
    one, other = await started(store), await started(store)
    for owner, path, kind, key in (
        (one, "-1/1", "modbus", "b"), (one, "-1/2", "modbus", "a"), (other, "-1/1", "modbus", "b"),
        (other, "-1/2", "modbus", "c"), (other, "-1/3", "event", "d"),
    ):  # fmt: skip
        store.writer.put(waiter.put(owner.id, path, kind, key, NOW, 0.0))
    assert await store.writer.call(waiter.keys, "modbus", 10) == ["a", "b", "c"]
    assert await store.writer.call(waiter.keys, "modbus", 2) == ["a", "b"]
    assert len(await store.writer.call(waiter.grant, "modbus", "b", "1")) == 2
    assert await store.writer.call(waiter.keys, "modbus", 10) == ["a", "c"]


async def test_an_event_goes_to_all_who_wait_for_it(store: Store) -> None:
    parked, running = await started(store), await started(store)
    for one in (parked, running):
        store.writer.put(waiter.put(one.id, "-1/1", "event", "door", NOW, 0.0))
    store.writer.put(waiter.put(running.id, "-1/2", "event", "other", NOW, 0.0))
    await store.writer.put(run.park(parked.id, 1, "WAITING", None))
    await store.writer.call(trigger.save, Trigger(id="t1", definition_id="d", kind="event", spec="door"))
    await store.writer.call(trigger.save, Trigger(id="t2", definition_id="d", kind="event", spec="door", enabled=False))
    published = await store.writer.call(event.publish, "door", '{"open":true}', NOW)
    assert {(one.run_id, one.path, one.worker) for one in published.grants} == {
        (parked.id, "-1/1", None),
        (running.id, "-1/1", store.worker),
    }
    assert [one.granted for one in published.grants] == ['{"open":true}'] * 2
    assert [one.id for one in published.triggers] == ["t1"]
    assert (await store.writer.call(event.publish, "door", None, NOW + 1)).grants == [], "each is granted once"
    found = await store.read(event.page, "door")
    assert [(one.at, one.name, one.data) for one in found] == [(NOW + 1, "door", None), (NOW, "door", '{"open":true}')]
    assert await store.read(event.page, "door", found[0].id) == found[1:]
    assert await store.read(event.page, "nothing") == []


async def test_grants_come_in_portions(store: Store) -> None:
    new = await started(store)
    for number in range(25):
        store.writer.put(waiter.put(new.id, f"-1/{number}", "event", "e", NOW, float(-number)))
    first = await store.writer.call(waiter.grant, "event", "e", "1", 20)
    second = await store.writer.call(waiter.grant, "event", "e", "1", 20)
    assert [one.path for one in first + second] == [f"-1/{number}" for number in range(24, -1, -1)]


async def test_places(store: Store) -> None:
    runs = [await started(store) for _ in range(4)]
    for position, (new, rank) in enumerate(zip(runs, (3.0, 1.0, 2.0, 2.0), strict=True)):
        store.writer.put(waiter.put(new.id, "-1/1", "robot", "any", NOW + position, rank))
    await store.writer.flush()
    assert [await store.read(waiter.place, new.id, "-1/1") for new in runs] == [4, 1, 2, 3]
    assert await store.read(waiter.place, runs[0].id, "-1/1", 2) == 3, "counted no further than the cap"
    with pytest.raises(NotFoundError):
        await store.read(waiter.place, runs[0].id, "-1/9")


async def test_those_who_came_at_the_same_time_have_different_places(store: Store) -> None:
    new, other = sorted([(await started(store)).id, (await started(store)).id])
    for run_id, path in ((other, "-1/1"), (new, "-1/2"), (new, "-1/1")):
        store.writer.put(waiter.put(run_id, path, "robot", "any", NOW, 0.0))
    await store.writer.flush()
    order = [(new, "-1/1"), (new, "-1/2"), (other, "-1/1")]
    assert [await store.read(waiter.place, *place) for place in order] == [1, 2, 3]
    served = await store.writer.call(waiter.grant, "robot", "any", "{}")
    assert [(one.run_id, one.path) for one in served] == order, "as they are served"


async def test_deleting(store: Store) -> None:
    new = new_run()
    for path in ("-1/1", "-1/2"):
        store.writer.put(waiter.put(new.id, path, "timer", "", NOW, 0.0))
    await store.writer.put(waiter.delete(new.id, "-1/1"), waiter.delete(new.id, "-1/7"))
    assert [row.path for row in (await store.read(waiter.load, [new.id]))[new.id]] == ["-1/2"]
