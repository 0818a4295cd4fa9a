"""Triggers: a due time is fired once and as a whole, however many processes see it and wherever one of them dies."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys

import msgspec
import pytest
from tests.store.conftest import new_run

from flatwater.bounded import Ledger
from flatwater.store import Store, trigger
from flatwater.store.trigger import Trigger

NOW = 1_800_000_000.0
DYING = """
import asyncio, sys
from flatwater.store import Store, trigger
from tests.store.conftest import new_run

async def main():
    async with Store.open(sys.argv[1]) as store:
        await store.join()
        (due,) = await store.read(trigger.due, 2e9)
        if sys.argv[2] == "inside":
            commit = store.dialect.commit
            def stop(connection):
                print("there", flush=True)
                sys.stdin.read()
            store.dialect.commit = stop
        else:
            print("there", flush=True)
            await asyncio.sleep(3600)
        await store.writer.call(trigger.fire, due, new_run(trigger_id="t"), 2e9, 3e9)

asyncio.run(main())
"""


def timed(next_at: float | None = NOW, **fields: object) -> Trigger:
    given = {"id": "t", "definition_id": "d", "kind": "interval", "spec": "5", "max_pending": 9, "next_at": next_at}
    return Trigger(**{**given, **fields})  # type: ignore[arg-type]


async def fire(store: Store, due: Trigger, at: float = NOW, next_at: float | None = NOW + 5) -> bool:
    return await store.writer.call(trigger.fire, due, new_run(trigger_id=due.id), at, next_at)


async def runs_of(store: Store, trigger_id: str = "t") -> int:
    return await store.read(trigger.pending, trigger_id)


async def test_one_of_two_processes_fires_what_both_see_due(store: Store, store_url: str) -> None:
    chance = random.Random(20261121)
    times = [NOW, *(NOW + chance.random() for _ in range(10)), 0.1 + 0.2, 1e9 / 3]
    async with Store.open(store_url, ledger=Ledger()) as other:
        for count, at in enumerate(times, 1):
            await store.writer.call(trigger.save, timed(at, max_pending=1000))
            (mine,), (its,) = await store.read(trigger.due, at), await other.read(trigger.due, at)
            fired = await asyncio.gather(fire(store, mine, at), fire(other, its, at))
            assert sorted(fired) == [False, True], f"due at {at!r}"
            assert await runs_of(store) == count
            assert await store.read(trigger.next_at) == NOW + 5, "the later one has not moved it on again"


async def test_no_more_than_allowed_are_open_however_many_events_come_at_once(store: Store, store_url: str) -> None:
    event = timed(None, kind="event", spec="door", max_pending=3)
    await store.writer.call(trigger.save, event)
    async with Store.open(store_url, ledger=Ledger()) as other:
        fired = await asyncio.gather(*(fire(each, event, next_at=None) for each in (store, other) for _ in range(10)))
    assert fired.count(True) == 3
    assert await runs_of(store) == 3


@pytest.mark.parametrize("change", ["disabled", "saved anew", "deleted"])
async def test_what_was_changed_meanwhile_does_not_fire(store: Store, change: str) -> None:
    due = timed()
    await store.writer.call(trigger.save, due)
    if change == "deleted":
        await store.writer.call(trigger.delete, "t")
    else:
        fields = {"enabled": False} if change == "disabled" else {"next_at": NOW + 7}
        await store.writer.call(trigger.save, msgspec.structs.replace(due, **fields))
    assert not await fire(store, due)
    assert await runs_of(store) == 0


async def test_what_cannot_be_started_is_left_out_once(store: Store) -> None:
    await store.writer.call(trigger.save, timed())
    (due,) = await store.read(trigger.due, NOW)
    assert not await store.writer.call(trigger.fire, due, None, NOW, NOW + 5)
    found = await store.read(trigger.get, "t")
    assert (found.last_at, found.last_run_id, found.next_at) == (NOW, None, NOW + 5)


@pytest.mark.parametrize("where", ["before", "inside"])
async def test_a_process_that_is_killed_has_fired_wholly_or_not_at_all(
    store: Store, store_url: str, where: str
) -> None:
    """Between having seen it due and firing it; and with all of it done but the commit."""
    await store.writer.call(trigger.save, timed())
    process = subprocess.Popen(
        [sys.executable, "-c", DYING, store_url, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        said = await asyncio.get_running_loop().run_in_executor(None, process.stdout.readline)
        assert said == "there\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        (due,) = await store.read(trigger.due, NOW)
        assert due.next_at == NOW
        assert await runs_of(store) == 0
        assert await fire(store, due), "another does it, and waits for no lock of the dead"
        assert await runs_of(store) == 1
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


async def test_what_a_source_tells_starts_one_run_for_each_key_also_across_processes(
    store: Store, store_url: str
) -> None:
    """Told once more it is known, beyond what may be open it waits, and a trigger that rests is gone."""
    source = timed(None, kind="folder", spec="/in", max_pending=2)
    await store.writer.call(trigger.save, source)
    await store.writer.call(trigger.save, timed(None, id="other", kind="tide", enabled=False))

    async def tell(teller: Store, key: str) -> str:
        new = new_run(trigger_id="t", out_order_no=key)
        return await teller.writer.call(trigger.tell, source, new, NOW)

    async with Store.open(store_url, ledger=Ledger()) as other:
        assert [await tell(each, "a") for each in (store, other, store)] == ["started", "known", "known"]
        assert [await tell(other, key) for key in "bcb"] == ["started", "full", "known"]
        assert await runs_of(store) == 2
        found = await other.read(trigger.of_kinds, ["tide", "folder"], 10)
        assert [each.id for each in found] == ["t"]
    await store.writer.call(trigger.save, msgspec.structs.replace(source, enabled=False, max_pending=9))
    source = msgspec.structs.replace(source, max_pending=9)
    assert await tell(store, "d") == "gone"
