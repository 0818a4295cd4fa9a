"""Workers: membership, leases, takeover after a death, fencing of the one presumed dead."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from tests.store.conftest import new_run, started

from flatwater.bounded import Ledger
from flatwater.errors import ConflictError, FencedError
from flatwater.store import Store, StoreOptions, run, variable, worker

WORKING = """
import asyncio, sys
from flatwater.store import Store, run
from tests.store.conftest import new_run, started

async def main():
    async with Store.open(sys.argv[1]) as store:
        await store.join()
        for _ in range(20):
            await started(store)
        await store.writer.put(run.insert(new_run()))
        print(store.worker, flush=True)
        while True:
            await asyncio.sleep(1)

asyncio.run(main())
"""


async def test_a_killed_worker_is_taken_over_at_once(store_url: str, ledger: Ledger) -> None:
    process = subprocess.Popen([sys.executable, "-c", WORKING, store_url], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        dead = (await asyncio.get_running_loop().run_in_executor(None, process.stdout.readline)).strip()
        async with Store.open(store_url, ledger=ledger) as store:
            own = await store.join()
            assert await store.take_over(time.time()) == [], "it is alive"
            process.send_signal(signal.SIGKILL)
            process.wait()
            taken: list[str] = []
            deadline = time.monotonic() + 5  # a server needs a moment to see that the connection is gone
            while not taken and time.monotonic() < deadline:
                taken = await store.take_over(time.time())
            assert len(taken) == 20
            claimed = await store.writer.call(run.claim, 99, own, time.time())
            assert len(claimed) == 21
            assert sorted(one.epoch for one in claimed) == [1] + [2] * 20
            assert [one.id for one in await store.read(worker.page)] == [own] != [dead]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_leaving_gives_back_what_was_claimed(store_url: str, ledger: Ledger) -> None:
    async with Store.open(store_url, ledger=ledger) as store:
        await store.join()
        with pytest.raises(ConflictError, match="already"):
            await store.join()
        new = await started(store, rank=3.5)
    async with Store.open(store_url, ledger=ledger) as again:
        row = await again.read(run.get, new.id)
        assert (row.state, row.queue, row.worker, row.rank) == ("QUEUED", "ready", None, 3.5)
        assert await again.read(worker.page) == []


async def test_whoever_misses_its_lease_is_fenced(store_url: str, ledger: Ledger) -> None:
    """The process lives, but its lease is old: another takes its runs, and it can write no more."""
    options = StoreOptions(renew_s=0.0)
    async with Store.open(store_url, options, ledger) as slow, Store.open(store_url, ledger=ledger) as other:
        await slow.join()
        await other.join()
        new = await started(slow)
        told: list[bool] = []
        slow.writer.on_fenced = lambda: told.append(True)
        assert await other.take_over(time.time() + other.options.lease_s + 1) == [new.id]
        (claimed,) = await other.writer.call(run.claim, 9, other.worker, time.time())
        refused = slow.writer.put(run.end(new.id, 1, "SUCCEEDED", time.time()), variable.put(new.id, "late", "1"))
        with pytest.raises(FencedError):
            await refused
        with pytest.raises(FencedError):
            await slow.writer.call(run.claim, 9, slow.worker, time.time())
        assert slow.writer.fenced
        assert told == [True]
        await other.writer.put(run.end(new.id, claimed.epoch, "SUCCEEDED", time.time()))
        assert (await other.read(variable.load, [new.id]))[new.id] == {}
        await slow.leave()
        await slow.join()
        await slow.writer.put(run.insert(new_run()))
        assert len(await slow.read(worker.page)) == 2


@pytest.mark.parametrize("database", ["postgres_url", "mariadb_url"])
async def test_whoever_stops_inside_a_batch_does_not_hold_up_the_others(
    request: pytest.FixtureRequest, ledger: Ledger, database: str
) -> None:
    """As a process does that gets SIGSTOP: the server ends its transaction; later it does it again."""
    url, go_on, stopped = request.getfixturevalue(database), threading.Event(), threading.Event()
    async with (
        Store.open(url, StoreOptions(busy_timeout_s=0.2), ledger) as slow,
        Store.open(url, ledger=Ledger()) as other,
    ):
        await slow.join()
        commit = slow.dialect.commit

        def stop(connection: Any) -> None:
            if not stopped.is_set():
                stopped.set()
                go_on.wait(60)
            commit(connection)

        slow.dialect.commit = stop  # type: ignore[method-assign]
        held, free = new_run(), new_run()
        late = slow.writer.put(run.insert(held))
        try:
            await asyncio.to_thread(stopped.wait, 10)
            async with asyncio.timeout(30):  # half of what the other waits for
                await other.writer.put(run.insert(free))
            assert set(await other.read(run.states, [held.id, free.id])) == {free.id}
        finally:
            go_on.set()
        await late
        assert set(await other.read(run.states, [held.id, free.id])) == {held.id, free.id}


async def test_the_lease_is_renewed_while_idle(store_url: str, ledger: Ledger) -> None:
    options = StoreOptions(lease_s=0.4, renew_s=0.05)
    async with Store.open(store_url, options, ledger) as store:
        await store.join()
        (before,) = await store.read(worker.page)
        deadline = time.monotonic() + 90
        while (await store.read(worker.page))[0].lease_at <= before.lease_at and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        (after,) = await store.read(worker.page)
        assert after.lease_at > before.lease_at
        assert (after.pid, after.started_at) == (before.pid, before.started_at)


async def test_a_store_that_is_no_worker_writes_too(store_url: str, ledger: Ledger) -> None:
    async with Store.open(store_url, ledger=ledger) as store:
        await store.writer.put(run.insert(new_run()))
        await store.leave()
        assert store.statistics().worker is None
        assert await store.read(run.count) == {"QUEUED": 1}
