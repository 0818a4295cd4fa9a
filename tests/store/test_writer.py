"""The writer: what is acknowledged is stored, in order, and what fails fails alone."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.store.conftest import new_run, started

from flatwater.bounded import Ledger
from flatwater.errors import ClosedError, ConflictError, FencedError, NotFoundError, StoreError
from flatwater.store import Store, StoreOptions, run, step, variable
from flatwater.store.ident import new_id
from flatwater.store.tx import Tx


async def test_what_is_awaited_is_seen_by_readers(store: Store) -> None:
    new = new_run(inputs='{"a": "ü\\u0000\\n\'\\"%"}')
    await store.writer.put(run.insert(new))
    row = await store.read(run.get, new.id)
    assert (row.inputs, row.state, row.queue, row.rank) == (new.inputs, "QUEUED", "ready", new.rank)


async def test_numbers_and_text_come_back_as_they_went(store: Store) -> None:
    new = await started(store, priority=-7, due_at=1.1, deadline_at=1795224426.963817, label="%s %% {x} 'q' \\ ü 🚚")
    text = "line\nbreak \\ \" ' % ü 🚚" + "x" * 100_000
    await store.writer.put(run.message(new.id, 1, text))
    row = await store.read(run.get, new.id)
    assert (row.priority, row.due_at, row.deadline_at, row.label) == (-7, 1.1, 1795224426.963817, new.label)
    assert row.state_message == text
    assert row.locked is False


async def test_text_that_no_database_keeps_does_not_stop_a_batch(store: Store) -> None:
    new = await started(store)
    await store.writer.put(run.message(new.id, 1, "nul \0 and half \ud800"))
    assert (await store.read(run.get, new.id)).state_message == "nul � and half ?"


async def test_puts_of_one_run_apply_in_order(store: Store) -> None:
    new = await started(store)
    for number in range(200):
        store.writer.put(run.message(new.id, 1, f"{number}"), variable.put(new.id, "n", f"{number}"))
        store.writer.put(step.put(new.id, "-1/1", 1, "b1", "T", "RUNNING", number, 1.0, None))
    await store.writer.flush()
    assert (await store.read(run.get, new.id)).state_message == "199"
    assert (await store.read(variable.load, [new.id]))[new.id]["n"].value == "199"
    assert [found.attempt for found in (await store.read(step.load, [new.id]))[new.id]] == [199]


async def test_a_refused_put_takes_nobody_with_it(store: Store) -> None:
    await store.writer.put(run.insert(new_run(out_order_no="taken")))
    good, bad = [new_run() for _ in range(20)], new_run(out_order_no="taken")
    puts = [store.writer.put(run.insert(new)) for new in good[:10]]
    refused = store.writer.put(variable.put(bad.id, "beside", "1"), run.insert(bad))
    puts += [store.writer.put(run.insert(new)) for new in good[10:]]
    with pytest.raises(ConflictError, match="taken"):
        await refused
    for put in puts:
        await put
    assert len(await store.read(run.states, [new.id for new in good])) == 20
    assert (await store.read(variable.load, [bad.id]))[bad.id] == {}, "all of a put or nothing"
    assert store.writer.statistics().refused == 1


async def test_a_stale_epoch_is_refused_and_changes_nothing(store: Store) -> None:
    new = await started(store)
    other = await started(store)
    stale = store.writer.put(
        step.put(new.id, "-1/9", 9, "b9", "T", "RUNNING", 1, 1.0, None), run.message(new.id, 7, "x")
    )
    fine = store.writer.put(run.message(other.id, 1, "fine"))
    with pytest.raises(FencedError, match=new.id):
        await stale
    await fine
    assert (await store.read(run.get, other.id)).state_message == "fine"
    assert (await store.read(step.load, [new.id]))[new.id] == []


async def test_inserting_a_run_twice_is_once(store: Store) -> None:
    new = new_run(label="first")
    await store.writer.put(run.insert(new))
    await store.writer.put(run.insert(new_run(id=new.id, label="second")))
    first, second = new_run(label="first"), None
    second = new_run(id=first.id, label="second")
    store.writer.put(run.insert(first))
    store.writer.put(run.insert(second))
    await store.writer.flush()
    assert [(await store.read(run.get, one)).label for one in (new.id, first.id)] == ["first", "first"]


async def test_calls_run_in_order_with_puts_and_fail_alone(store: Store) -> None:
    new = new_run()
    put = store.writer.put(run.insert(new))

    def read_and_fail(tx: Tx) -> None:
        assert run.get(tx, new.id).label == "Demo"
        run.submit(tx, new_run(id=new.id[:-4] + "ZZZZ"))
        raise NotFoundError("on purpose")

    results = await asyncio.gather(
        store.writer.call(run.get, new.id),
        store.writer.call(read_and_fail),
        store.writer.call(lambda tx: run.states(tx, [new.id])),
        return_exceptions=True,
    )
    await put
    assert isinstance(results[0], run.RunRow)
    assert isinstance(results[1], NotFoundError)
    assert results[2] == {new.id: "QUEUED"}
    assert await store.read(run.states, [new.id[:-4] + "ZZZZ"]) == {}, "what failed left nothing"


async def test_a_bug_in_a_call_is_a_store_error_with_its_cause(store: Store) -> None:
    with pytest.raises(StoreError, match="ZeroDivisionError") as caught:
        await store.writer.call(lambda tx: 1 // 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_wrong_parameters_are_named(store: Store) -> None:
    with pytest.raises(StoreError, match="wanted by"):
        await store.writer.call(lambda tx: tx.all(run._STATE, nonsense=1))


async def test_one_batch_for_what_gathers(sqlite_store: Store) -> None:
    new = await started(sqlite_store)
    before = sqlite_store.writer.statistics().batches
    for number in range(1000):
        sqlite_store.writer.put(variable.put(new.id, f"v{number}", "1"))
    await sqlite_store.writer.flush()
    assert sqlite_store.writer.statistics().batches - before <= 10
    assert sqlite_store.writer.statistics().size == 0


async def test_several_tasks_may_await_one_commit(store: Store) -> None:
    put = store.writer.put(run.insert(new_run()))

    async def wait() -> None:
        await put

    waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
    waiting[0].cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None, None]
    await put  # once more, when it is over


async def test_room_holds_submitters_until_the_disk_has_caught_up(sqlite_url: str, ledger: Ledger) -> None:
    options = StoreOptions(max_pending_ops=50, max_batch_rows=10)
    async with Store.open(sqlite_url, options, ledger) as store:
        highest = 0

        async def submit() -> None:
            nonlocal highest
            for _ in range(20):
                await store.writer.room()
                store.writer.put(run.insert(new_run()))
                highest = max(highest, store.writer.statistics().size)

        await asyncio.gather(*(submit() for _ in range(20)))
        await store.writer.flush()
        assert highest <= 50 + 1
        assert await store.read(run.count) == {"QUEUED": 400}


async def test_bytes_bound_what_is_pending_too(sqlite_url: str, ledger: Ledger) -> None:
    async with Store.open(sqlite_url, StoreOptions(max_pending_bytes=1000), ledger) as store:
        store.writer.put(run.insert(new_run(inputs="x" * 2000)))
        assert store.writer.statistics().bytes == 2000
        await store.writer.room()
        assert store.writer.statistics().bytes == 0


async def test_an_idle_writer_commits_at_once(sqlite_store: Store) -> None:
    new = await started(sqlite_store)
    times = []
    for number in range(50):
        began = time.perf_counter()
        await sqlite_store.writer.put(variable.put(new.id, "v", f"{number}"))
        times.append(time.perf_counter() - began)
    assert sorted(times)[25] < 0.25, "there is no pause for gathering"


async def test_a_busy_loop_does_not_starve_the_writer(sqlite_store: Store) -> None:
    """The interpreter's lock changes hands a few times per batch, not once per row."""
    new = await started(sqlite_store)
    puts = [sqlite_store.writer.put(variable.put(new.id, f"v{n}", "1")) for n in range(2000)]
    deadline = time.perf_counter() + 30
    while not puts[-1].done and time.perf_counter() < deadline:
        until = time.perf_counter() + 0.02
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)
    assert puts[-1].done


async def test_close_commits_what_is_pending(store_url: str, ledger: Ledger) -> None:
    async with Store.open(store_url, ledger=ledger) as store:
        new = [new_run() for _ in range(500)]
        for one in new:
            store.writer.put(run.insert(one))
    with pytest.raises(ClosedError):
        store.writer.put(run.insert(new_run()))
    await store.close()
    async with Store.open(store_url, ledger=ledger) as again:
        assert await again.read(run.count) == {"QUEUED": 500}


async def test_an_unheard_refusal_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.writer.put(run.message(new_id(), 1, "nobody there"))
    await store.writer.flush()
    assert "refused while nobody awaited it" in caplog.text


async def test_two_stores_share_one_database(store_url: str, ledger: Ledger) -> None:
    async with Store.open(store_url, ledger=ledger) as one, Store.open(store_url, ledger=ledger) as other:
        mine, theirs = [new_run() for _ in range(100)], [new_run() for _ in range(100)]
        for first, second in zip(mine, theirs, strict=True):
            one.writer.put(run.insert(first))
            other.writer.put(run.insert(second))
        await asyncio.gather(one.writer.flush(), other.writer.flush())
        assert await one.read(run.count) == await other.read(run.count) == {"QUEUED": 200}


async def test_what_is_too_large_for_the_database_fails_alone(store: Store) -> None:
    """MariaDB takes 16 MiB at a time by default; there and elsewhere the writer goes on."""
    large, small = new_run(inputs="x" * 20_000_000), new_run()
    first, second = store.writer.put(run.insert(large)), store.writer.put(run.insert(small))
    await second
    if store.dialect.name == "mysql":
        with pytest.raises(StoreError, match="max_allowed_packet"):
            await first
    else:
        await first
        assert len((await store.read(run.get, large.id)).inputs or "") == 20_000_000
    assert (await store.read(run.states, [small.id])) == {small.id: "QUEUED"}
