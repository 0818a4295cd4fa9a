"""Opening and closing, readers, figures, and a COMMIT whose answer never came."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from tests.store.conftest import new_run, started

from flatwater.bounded import Ledger
from flatwater.errors import ClosedError, DamagedError, LimitError, StoreError
from flatwater.store import Store, StoreOptions, run, variable
from flatwater.store.dialect import Connection, choose
from flatwater.store.tx import Tx


async def test_figures(store: Store, ledger: Ledger) -> None:
    await started(store)
    await store.read(run.count)
    figures = store.statistics()
    assert (figures.connections, figures.max_connections) == (2, store.options.max_readers + 1)
    assert (figures.worker, figures.degraded) == (store.worker, None)
    assert (figures.readers.reads, figures.readers.size) == (1, 0)
    assert figures.writer.rows >= 1
    assert figures.writer.batches >= 2
    assert {entry.name for entry in ledger.entries()} == {"store.writer", "store.readers"}
    assert await store.size_bytes() > 10_000
    assert await store.check() == []


async def test_sessions_of_the_server(store: Store) -> None:
    await store.read(run.count)
    sessions = await store.sessions()
    if store.dialect.name == "sqlite":
        assert sessions == [], "there is no server"
    else:
        assert len(sessions) >= 2
        assert all(who and what and seconds >= 0 for who, what, seconds in sessions)


async def test_reads_are_bounded(sqlite_url: str, ledger: Ledger) -> None:
    gate = threading.Event()
    async with Store.open(sqlite_url, StoreOptions(max_readers=2, max_pending_reads=3), ledger) as store:
        waiting = [asyncio.ensure_future(store.read(lambda tx: gate.wait(30))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(LimitError, match="max_pending_reads"):
            await store.read(run.count)
        gate.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert store.statistics().connections <= 3
        assert await store.read(run.count) == {}


async def test_a_read_sees_one_state_of_the_database(store: Store) -> None:
    loop = asyncio.get_running_loop()

    def count_twice(tx: Tx) -> tuple[object, object]:
        first = run.count(tx)
        asyncio.run_coroutine_threadsafe(insert(), loop).result(30)
        return first, run.count(tx)

    async def insert() -> None:
        await store.writer.put(run.insert(new_run()))

    assert await store.read(count_twice) == ({}, {})
    assert await store.read(run.count) == {"QUEUED": 1}


async def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.read(lambda tx: tx.apply(run.insert(new_run())))
    assert await store.read(run.count) == {}


async def test_errors_of_a_read_are_its_own(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        await store.read(lambda tx: 1 // 0)
    with pytest.raises(StoreError):
        await store.read(lambda tx: tx.dialect.execute(tx.connection, "SELECT nonsense", {}))
    assert await store.read(run.count) == {}


async def test_closing_twice_is_once(store_url: str, ledger: Ledger) -> None:
    store = Store.open(store_url, ledger=ledger)
    await store.close()
    async with store:
        await store.close()
    await store.close()
    with pytest.raises(ClosedError):
        await store.read(run.count)


async def test_many_open_one_new_database_at_once(store_url: str, ledger: Ledger) -> None:
    async def open_and_write() -> None:
        async with Store.open(store_url, ledger=ledger) as store:
            await store.writer.put(run.insert(new_run()))

    await asyncio.gather(*(open_and_write() for _ in range(4)))
    async with Store.open(store_url, ledger=ledger) as store:
        assert await store.read(run.count) == {"QUEUED": 4}


class CutCommit:
    """Breaks the writer's connection around one COMMIT: before it reaches the server, or after."""

    def __init__(self, store: Store, *, stored: bool) -> None:
        self.store, self.stored, self.cut = store, stored, 0
        self.commit = store.dialect.commit
        store.dialect.commit = self  # type: ignore[method-assign, assignment]

    def __call__(self, connection: Connection) -> None:
        if self.cut:
            self.commit(connection)
            return
        self.cut += 1
        if self.stored:
            self.commit(connection)
        connection.close()
        self.commit(connection)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
@pytest.mark.parametrize("stored", [True, False])
async def test_a_commit_without_an_answer_happens_once(
    request: pytest.FixtureRequest, ledger: Ledger, kind: str, stored: bool
) -> None:
    """A claim must neither be lost nor be made twice, whether or not the server had stored it."""
    async with Store.open(request.getfixturevalue(f"{kind}_url"), ledger=ledger) as store:
        own = await store.join()
        for _ in range(3):
            await store.writer.put(run.insert(new_run()))
        cut = CutCommit(store, stored=stored)
        claimed = await store.writer.call(run.claim, 2, own, 1.0)
        assert cut.cut == 1
        assert [one.epoch for one in claimed] == [1, 1]
        assert await store.read(run.count) == {"RUNNING": 2, "QUEUED": 1}
        rest = await store.writer.call(run.claim, 9, own, 1.0)
        assert {one.id for one in rest}.isdisjoint(one.id for one in claimed)


async def test_without_membership_an_unanswered_commit_is_an_error(postgres_url: str, ledger: Ledger) -> None:
    async with Store.open(postgres_url, ledger=ledger) as store:
        CutCommit(store, stored=True)
        with pytest.raises(StoreError, match="not known"):
            await store.writer.put(run.insert(new_run()))
        await store.writer.put(run.insert(new_run()))
        assert await store.read(run.count) == {"QUEUED": 2}


async def test_damage_found_while_writing_fails_what_waits(sqlite_store: Store) -> None:
    new = await started(sqlite_store)
    begin = sqlite_store.dialect.begin

    def damaged(connection: Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    sqlite_store.dialect.begin = damaged  # type: ignore[method-assign]
    with pytest.raises(DamagedError, match="backup"):
        await sqlite_store.writer.put(variable.put(new.id, "v", "1"))
    assert "damaged" in (sqlite_store.statistics().degraded or "")
    sqlite_store.dialect.begin = begin  # type: ignore[method-assign]
    await sqlite_store.writer.put(variable.put(new.id, "v", "1"))
    assert sqlite_store.statistics().degraded is None


def test_urls() -> None:
    assert choose("relative.db").url.database is not None
    assert choose("relative.db").url.database.startswith("/")
    assert choose("sqlite:////tmp/x.db").url.database == "/tmp/x.db"
    assert "secret" not in choose("postgresql://me:secret@host/db").place
    assert choose("mariadb://root@host/db").name == choose("mysql+pymysql://root@host/db").name == "mysql"
