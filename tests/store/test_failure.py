"""A database in trouble: full, locked, damaged, unreachable, another's. Nothing is acknowledged that is not stored."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.store.conftest import new_run, started

from flatwater.bounded import Ledger
from flatwater.errors import DamagedError, SettingError, StoreError, StoreFullError
from flatwater.store import Store, StoreOptions, cache, migrate, run, variable, worker
from flatwater.store.dialect import choose
from flatwater.store.thread import in_thread
from flatwater.store.tx import Tx

QUICK = StoreOptions(busy_timeout_s=0.05, retry_s=0.02, max_retry_s=0.1, close_s=0.5)


def limit_pages(tx: Tx, spare: int | None) -> None:
    """Leave room for `spare` more pages in the database, None for as many as one likes."""
    (used,) = tx.connection.execute("PRAGMA page_count").fetchone()
    tx.connection.execute(f"PRAGMA max_page_count = {1 << 30 if spare is None else used + spare}")


async def forever(function: Callable[[], Awaitable[None]]) -> None:
    while True:
        await function()


async def test_on_a_full_disk_submissions_fail_and_progress_is_kept(sqlite_url: str, ledger: Ledger) -> None:
    async with Store.open(sqlite_url, QUICK, ledger) as store:
        new = await started(store)
        await store.writer.call(limit_pages, 4)
        accepted = []

        async def submit() -> None:
            one = new_run(inputs="x" * 3000)
            await store.writer.put(run.insert(one))
            accepted.append(one.id)

        with pytest.raises(StoreFullError, match="free some room"):
            await asyncio.wait_for(forever(submit), 60)
        with pytest.raises(StoreFullError):
            await store.writer.call(cache.put, "k", "x" * 100_000, 0.0, 9, 1 << 30)
        progress = store.writer.put(variable.put(new.id, "v", "x" * 50_000))
        await asyncio.sleep(0.2)
        assert not progress.done, "kept, and tried again"
        assert "full" in (store.statistics().degraded or "")
        assert store.statistics().writer.retries > 1
        with pytest.raises(StoreFullError):
            await store.writer.put(run.insert(new_run(inputs="x" * 3000)))
        making_room = sqlite3.connect(store.dialect.url.database or "")
        making_room.execute("DELETE FROM run WHERE id = ?", (accepted[0],))
        making_room.commit()
        making_room.close()
        store.writer._connection.execute("PRAGMA max_page_count = 1073741823")
        await progress
        assert store.statistics().degraded is None
        assert set(await store.read(run.states, accepted[1:])) == set(accepted[1:])
        assert (await store.read(variable.load, [new.id]))[new.id]["v"].value == "x" * 50_000


FULL_DISK = """
import asyncio, resource, signal, sys
from flatwater.errors import StoreFullError
from flatwater.store import Store, StoreOptions, run
from tests.store.conftest import new_run

async def main():
    async with Store.open(sys.argv[1], StoreOptions(close_s=0.2, retry_s=0.05)) as store:
        await store.writer.put(run.insert(new_run()))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        try:
            while True:
                new = new_run(inputs="x" * 10_000)
                await store.writer.put(run.insert(new))
                print(new.id, flush=True)
        except StoreFullError as error:
            print("FULL", error, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        new = new_run()
        await store.writer.put(run.insert(new))
        print(new.id, flush=True)
        print("WELL", store.statistics().degraded, flush=True)

asyncio.run(main())
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_a_real_limit_of_the_file_system(sqlite_url: str, ledger: Ledger) -> None:
    """The process may write no file beyond 2 MB: the system itself refuses, in the middle of the WAL."""
    done = run_python(FULL_DISK, sqlite_url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert any(line.startswith("FULL") for line in lines), done.stdout
    assert "WELL None" in lines
    accepted = [line for line in lines if line.startswith("0")]
    assert len(accepted) > 20
    async with Store.open(sqlite_url, ledger=ledger) as store:
        assert set(await store.read(run.states, accepted)) == set(accepted)
        assert sum((await store.read(run.count)).values()) == len(accepted) + 1, "what was refused is not there"
        assert await store.check() == []


@pytest.fixture
def locked_by_another(sqlite_url: str) -> Iterator[sqlite3.Connection]:
    dialect = choose(sqlite_url)
    connection = dialect.connect()
    migrate.prepare(dialect, connection)
    dialect.close(connection)
    other = sqlite3.connect(dialect.url.database or "", isolation_level=None)
    yield other
    other.close()


async def test_a_locked_file_is_waited_for(
    sqlite_url: str, ledger: Ledger, locked_by_another: sqlite3.Connection
) -> None:
    async with Store.open(sqlite_url, QUICK, ledger) as store:
        locked_by_another.execute("BEGIN EXCLUSIVE")
        put = store.writer.put(run.insert(new_run()))
        call = asyncio.ensure_future(store.writer.call(run.submit, new_run()))
        await asyncio.sleep(0.3)
        assert not put.done
        assert "locked by another process" in (store.statistics().degraded or "")
        locked_by_another.execute("ROLLBACK")
        await put
        assert (await call).created
        assert store.statistics().degraded is None
        assert await store.read(run.count) == {"QUEUED": 2}


async def test_closing_does_not_wait_for_ever(
    sqlite_url: str, ledger: Ledger, locked_by_another: sqlite3.Connection
) -> None:
    store = Store.open(sqlite_url, QUICK, ledger)
    async with store:
        await store.join()
        locked_by_another.execute("BEGIN EXCLUSIVE")
        put = store.writer.put(run.insert(new_run()))
        began = time.monotonic()
    assert time.monotonic() - began < 20
    locked_by_another.execute("ROLLBACK")
    with pytest.raises(StoreError, match="locked by another process"):
        await put
    async with Store.open(sqlite_url, ledger=ledger) as again:
        assert await again.read(run.count) == {}
        assert await again.take_over(time.time()) == []
        assert await again.read(worker.page) == [], "it could not say that it left, but its lock is free"


async def fill(url: str, ledger: Ledger) -> None:
    async with Store.open(url, ledger=ledger) as store:
        for _ in range(200):
            store.writer.put(run.insert(new_run(inputs="x" * 2000)))


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def test_overwritten_bytes_are_found(sqlite_url: str, ledger: Ledger) -> None:
    await fill(sqlite_url, ledger)
    pages = path_of(sqlite_url).stat().st_size // 4096
    with path_of(sqlite_url).open("r+b") as file:
        for page in range(pages // 2, pages):
            file.seek(4096 * page)
            file.write(b"\xff" * 4096)
    async with Store.open(sqlite_url, ledger=ledger) as store:
        assert len(await store.check()) > 0
        with pytest.raises(DamagedError, match="backup"):
            await store.read(lambda tx: tx.connection.execute("SELECT sum(length(inputs)) FROM run").fetchall())


async def test_writing_into_damaged_pages_is_refused(sqlite_url: str, ledger: Ledger) -> None:
    await fill(sqlite_url, ledger)
    size = path_of(sqlite_url).stat().st_size
    with path_of(sqlite_url).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises((DamagedError, StoreError)):
        async with Store.open(sqlite_url, ledger=ledger) as store:
            await store.writer.put(run.insert(new_run()))


async def test_a_truncated_file_is_refused(sqlite_url: str, ledger: Ledger) -> None:
    await fill(sqlite_url, ledger)
    os.truncate(path_of(sqlite_url), 5000)
    with pytest.raises(DamagedError, match="malformed"):
        async with Store.open(sqlite_url, ledger=ledger) as store:
            await store.writer.put(run.insert(new_run()))


async def test_what_is_no_database_is_left_alone(sqlite_url: str, ledger: Ledger) -> None:
    path_of(sqlite_url).write_text("a shopping list, and not short at all\n" * 100)
    with pytest.raises(DamagedError, match="does not begin like a SQLite database"):
        async with Store.open(sqlite_url, ledger=ledger):
            pass
    assert path_of(sqlite_url).read_text().startswith("a shopping list")


async def test_the_database_of_another_program_is_left_alone(store_url: str, ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (id)")
    connection.close()
    with pytest.raises(StoreError, match=r"another program.*bookmarks"):
        async with Store.open(str(path), ledger=ledger):
            pass


@pytest.mark.parametrize(("found", "hint"), [("0000", "db upgrade"), ("9999", "newer Flatwater")])
async def test_another_schema_is_refused(store_url: str, ledger: Ledger, found: str, hint: str) -> None:
    async with Store.open(store_url, ledger=ledger):
        pass
    await in_thread(set_version, store_url, found)
    try:
        with pytest.raises(StoreError, match=hint):
            async with Store.open(store_url, ledger=ledger):
                pass
    finally:
        await in_thread(set_version, store_url, migrate.HEAD)


def set_version(url: str, version: str) -> None:
    dialect = choose(url)
    connection = dialect.connect()
    dialect.execute(connection, f"UPDATE alembic_version SET version_num = '{version}'", {})
    dialect.close(connection)


async def test_no_folder_no_file(tmp_path: Path, ledger: Ledger) -> None:
    with pytest.raises(StoreError, match="mkdir -p"):
        async with Store.open(f"{tmp_path}/missing/x.db", ledger=ledger):
            pass
    with pytest.raises(StoreError, match="it is a folder"):
        async with Store.open(str(tmp_path), ledger=ledger):
            pass


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://", ":memory:"])
def test_memory_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="nothing would survive"):
        Store.open(url)


@pytest.mark.parametrize("url", ["oracle://x/y", "http://host", "://"])
def test_unknown_databases_are_refused(url: str) -> None:
    with pytest.raises(SettingError, match="database"):
        Store.open(url)


READ_ONLY = """
import asyncio, os, sys
from flatwater.store import Store
store = Store.open(sys.argv[1])  # imports what a stranger may not read
os.setgid(65534); os.setuid(65534)
async def main():
    async with store:
        pass
asyncio.run(main())
"""


def test_a_read_only_folder_is_named() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody who may not write here")
    # Not in tmp_path: whichever pytest starts next closes the folder of all its runs to others again.
    with tempfile.TemporaryDirectory(prefix="flatwater-test-") as folder:
        Path(folder).chmod(0o755)
        done = run_python(READ_ONLY, f"{folder}/x.db")
    assert "no permission to write" in done.stderr, done.stderr
    assert done.returncode != 0


async def test_a_server_that_is_not_there(ledger: Ledger) -> None:
    for url in ("postgresql://postgres@127.0.0.1:1/x", "mysql://root@127.0.0.1:1/x"):
        with pytest.raises(StoreError, match="is the server up"):
            async with Store.open(url, ledger=ledger):
                pass


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
async def test_a_cut_connection_is_replaced(request: pytest.FixtureRequest, ledger: Ledger, kind: str) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    async with Store.open(url, QUICK, ledger) as store:
        await store.join()
        new = await started(store)
        await store.read(run.count)
        cut_all(url, kind)
        puts = [store.writer.put(variable.put(new.id, f"v{n}", "1")) for n in range(50)]
        for put in puts:
            await put
        assert len((await store.read(variable.load, [new.id]))[new.id]) == 50
        assert not store.writer.fenced
        assert store.statistics().degraded is None


def cut_all(url: str, kind: str) -> None:
    dialect = choose(url)
    connection = dialect.connect()
    if kind == "postgres":
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    else:
        own = dialect.execute(connection, "SELECT CONNECTION_ID()", {}).fetchone()[0]
        sql = "SELECT id FROM information_schema.processlist WHERE db = DATABASE()"
        for (other,) in dialect.execute(connection, sql, {}).fetchall():
            if other != own:
                dialect.execute(connection, f"KILL {other}", {})
    dialect.close(connection)
