"""The conformance fixtures: `store_url` is an empty database on each of the supported kinds in turn.

A server's database is created once a session and emptied after each test, for creating one takes most of a second;
tests about creation itself ask for `postgres_url` or `mariadb_url`, which are fresh.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import service

from flatwater.bounded import Ledger
from flatwater.store import Store, run
from flatwater.store.dialect import choose
from flatwater.store.ident import new_id

DATABASES = ("sqlite", "postgres", "mariadb")


@pytest.fixture(params=DATABASES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/flatwater.db"
        return
    url = str(request.getfixturevalue(f"shared_{request.param}"))
    yield url
    empty(url)


@pytest.fixture(scope="session")
def shared_postgres(postgres_port: int) -> Iterator[str]:
    with contextmanager(service.postgres_url.__wrapped__)(postgres_port) as url:
        yield url


@pytest.fixture(scope="session")
def shared_mariadb(mariadb_port: int) -> Iterator[str]:
    with contextmanager(service.mariadb_url.__wrapped__)(mariadb_port) as url:
        yield url


def empty(url: str) -> None:
    dialect = choose(url)
    connection = dialect.connect()
    for table in sorted(dialect.tables(connection) - {"alembic_version"}):
        dialect.execute(connection, f"DELETE FROM {dialect.sql.identifier_preparer.quote(table)}", {})
    dialect.close(connection)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/flatwater.db"


@pytest.fixture
async def store(store_url: str, ledger: Ledger) -> AsyncIterator[Store]:
    """An open store on each kind of database; a worker already."""
    async with Store.open(store_url, ledger=ledger) as opened:
        await opened.join()
        yield opened


@pytest.fixture
async def sqlite_store(sqlite_url: str, ledger: Ledger) -> AsyncIterator[Store]:
    async with Store.open(sqlite_url, ledger=ledger) as opened:
        await opened.join()
        yield opened


def new_run(**fields: Any) -> run.NewRun:
    """A run that is ready unless `fields` say otherwise."""
    now = time.time()
    base = {
        "id": new_id(), "definition_id": "demo", "label": "Demo", "version": 1, "hash": "a" * 64, "rank": now,
        "created_at": now,
    }  # fmt: skip
    return run.NewRun(**{**base, **fields})


async def started(store: Store, **fields: Any) -> run.NewRun:
    """A run inserted as RUNNING in the store's own worker, with epoch 1."""
    given = {"state": "RUNNING", "queue": None, "worker": store.worker, "epoch": 1, "started_at": time.time()}
    new = new_run(**{**given, **fields})
    await store.writer.put(run.insert(new))
    return new
