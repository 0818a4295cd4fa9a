"""Migrations lead to the very tables that a fresh database gets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Index, MetaData, create_engine, pool, text
from tests.store.conftest import DATABASES, new_run

from flatwater.bounded import Ledger
from flatwater.errors import StoreError
from flatwater.store import Store, migrate, run
from flatwater.store.dialect import choose
from flatwater.store.thread import in_thread


@pytest.fixture(params=DATABASES)
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database where nothing was ever created."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fresh.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


def run_all_migrations(url: str) -> None:
    """From nothing to the head, step by step, as a database that was made by the first version would go."""
    dialect = choose(url)
    connection = dialect.connect()
    dialect.execute(connection, f"CREATE TABLE {migrate.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)", {})
    dialect.close(connection)
    assert migrate.upgrade(url) == migrate.HEAD


def described(url: str) -> dict[str, object]:
    """Tables, columns and indexes as the database itself tells them."""
    engine = create_engine(choose(url).url, poolclass=pool.NullPool)
    found = MetaData()
    found.reflect(engine)
    described: dict[str, object] = {}
    for table in found.sorted_tables:
        if table.name == migrate.VERSION_TABLE:
            continue
        columns = [(c.name, str(c.type), c.nullable, _text(c.server_default)) for c in table.columns]
        indexes = {i.name: ([c.name for c in i.columns], bool(i.unique), _options(i)) for i in table.indexes}
        described[table.name] = columns, [c.name for c in table.primary_key], indexes
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT name, sql LIKE '%WITHOUT ROWID%' FROM sqlite_master"))
            described["without rowid"] = sorted(name for name, without in rows if without)
    engine.dispose()
    return described


def _text(default: object) -> str:
    return str(getattr(default, "arg", None))


def _options(index: Index) -> dict[str, str]:
    return {name: str(value) for name, value in index.dialect_kwargs.items()}


async def test_migrations_lead_to_the_metadata(fresh_url: str, ledger: Ledger) -> None:
    await in_thread(run_all_migrations, fresh_url)
    assert await in_thread(migrate.check, fresh_url) == []
    migrated = await in_thread(described, fresh_url)
    async with Store.open(fresh_url, ledger=ledger) as store:
        await store.writer.put(run.insert(new_run()))
    await in_thread(empty_again, fresh_url)
    async with Store.open(fresh_url, ledger=ledger):
        pass
    assert await in_thread(described, fresh_url) == migrated
    assert len(migrated) >= 15


def empty_again(url: str) -> None:
    dialect = choose(url)
    connection = dialect.connect()
    for table in dialect.tables(connection):
        dialect.execute(connection, f"DROP TABLE {dialect.sql.identifier_preparer.quote(table)}", {})
    dialect.close(connection)


def test_the_program_wants_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert scripts.get_heads() == [migrate.HEAD]


async def test_processes_that_come_at_once_to_an_empty_database_find_it_made(fresh_url: str) -> None:
    stores = [Store.open(fresh_url) for _ in range(4)]
    found = await asyncio.gather(*(store.__aenter__() for store in stores), return_exceptions=True)
    for store in found:
        if isinstance(store, Store):
            await store.close()
    assert [error for error in found if isinstance(error, BaseException)] == []
    assert await in_thread(migrate.check, fresh_url) == []


async def test_tables_whose_maker_died_are_made_anew(mariadb_url: str) -> None:
    dialect = choose(mariadb_url)
    connection = dialect.connect()
    dialect.execute(connection, f"CREATE TABLE {migrate.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)", {})
    for statement in migrate.ddl(dialect)[:5]:
        dialect.execute(connection, statement, {})
    dialect.close(connection)
    async with Store.open(mariadb_url) as store:
        await store.writer.put(run.insert(new_run()))
    assert migrate.check(mariadb_url) == []
    connection = dialect.connect()
    dialect.execute(connection, f"DELETE FROM {migrate.VERSION_TABLE}", {})
    dialect.close(connection)
    with pytest.raises(StoreError, match="no version, but rows in run"):
        async with Store.open(mariadb_url):
            pass


def test_upgrading_an_empty_or_a_current_database(fresh_url: str) -> None:
    assert migrate.upgrade(fresh_url) == migrate.HEAD
    assert migrate.upgrade(fresh_url) == migrate.HEAD
    assert migrate.check(fresh_url) == []


def test_check_names_what_differs(sqlite_url: str) -> None:
    migrate.upgrade(sqlite_url)
    dialect = choose(sqlite_url)
    connection = dialect.connect()
    dialect.execute(connection, "DROP INDEX run_ready", {})
    dialect.execute(connection, "ALTER TABLE site ADD COLUMN colour TEXT", {})
    dialect.close(connection)
    differences = "\n".join(migrate.check(sqlite_url))
    assert "run_ready" in differences
    assert "colour" in differences


def test_another_programs_database_is_not_upgraded(sqlite_url: str) -> None:
    connection = choose(sqlite_url).connect()
    connection.execute("CREATE TABLE bookmarks (id)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        migrate.upgrade(sqlite_url)
