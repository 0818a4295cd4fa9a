"""The SQL family on real databases: SQLite always, PostgreSQL and MariaDB where they can be started."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from flatwater.store.state import State
from tests.engine.blocks.conftest import Open
from tests.engine.plan import b

SETUP = (
    "CREATE TABLE stock (sku VARCHAR(40) PRIMARY KEY, amount INTEGER, price NUMERIC(10, 2), at TIMESTAMP NULL)",
    "INSERT INTO stock VALUES ('A', 1, 2.50, '2026-11-01 10:00:00'), ('B', 2, 4.00, NULL), ('C', 3, NULL, NULL)",
)


@contextmanager
def prepared(url: str) -> Iterator[str]:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in SETUP:
            connection.exec_driver_sql(statement)
    engine.dispose()
    yield url


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/stock.db"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    with prepared(url) as url:
        yield url


def query(sql: str, **more: Any) -> dict[str, Any]:
    return b(1, "JdbcQueryBp", {"sql": sql, **more})


def change(sql: str, **more: Any) -> dict[str, Any]:
    return b(1, "JdbcExecuteBp", {"sql": sql, **more})


async def test_rows_and_values(open_bench: Open, database: str) -> None:
    async with open_bench(databases={"stock": database}) as bench:
        rows = (
            await bench.outputs(
                query(
                    "SELECT sku, amount, price, at FROM stock WHERE amount <= :most ORDER BY sku", params={"most": 2}
                ),
                outputs={"r": "blocks.b1.resultSet"},
            )
        )["r"]
        assert [(row["sku"], row["amount"], row["price"]) for row in rows] == [("A", 1, 2.5), ("B", 2, 4)]
        assert rows[0]["at"].replace("T", " ").startswith("2026-11-01 10:00:00")
        assert rows[1]["at"] is None
        statistics = bench.engine.services.databases.statistics()
        assert (statistics.size, statistics.bound) == (1, 2)


async def test_a_change_is_committed_and_counted(open_bench: Open, database: str) -> None:
    async with open_bench(databases={"stock": database}) as bench:
        sql = "UPDATE stock SET amount = amount + :n WHERE amount >= 2"
        outputs = {"n": "blocks.b1.rowCount"}
        assert await bench.outputs(change(sql, params={"n": 10}), outputs=outputs) == {"n": 2}
        total = query("SELECT SUM(amount) AS total FROM stock")
        assert await bench.outputs(total, outputs={"t": "blocks.b1.resultSet[0].total"}) == {"t": 26}


async def test_values_are_bound_and_never_pasted(open_bench: Open, database: str) -> None:
    nasty = "x'; DROP TABLE stock; --"
    async with open_bench(databases={"stock": database}) as bench:
        block = change("UPDATE stock SET sku = :sku WHERE sku = 'A'", params="=taskInputs.p")
        await bench.outputs(block, inputs={"p": {"sku": nasty}})
        found = query("SELECT sku FROM stock WHERE amount = 1")
        assert await bench.outputs(found, outputs={"s": "blocks.b1.resultSet[0].sku"}) == {"s": nasty}


async def test_a_text_without_params_goes_as_it_is(open_bench: Open, database: str) -> None:
    async with open_bench(databases={"stock": database}) as bench:
        block = query("SELECT '10:30 50% :x' AS t, sku FROM stock WHERE sku LIKE 'A%'")
        outputs = await bench.outputs(block, outputs={"t": "blocks.b1.resultSet[0].t"})
        assert outputs == {"t": "10:30 50% :x"}


async def test_a_query_changes_nothing(open_bench: Open, database: str) -> None:
    async with open_bench(databases={"stock": database}) as bench:
        error = await bench.error(query("DELETE FROM stock"))
        assert "The database refused the statement" in error
        count = query("SELECT COUNT(*) AS n FROM stock")
        assert await bench.outputs(count, outputs={"n": "blocks.b1.resultSet[0].n"}) == {"n": 3}
        assert await bench.outputs(
            change("DELETE FROM stock WHERE sku = 'A'"), outputs={"n": "blocks.b1.rowCount"}
        ) == {"n": 1}


async def test_rows_are_limited(open_bench: Open, database: str) -> None:
    async with open_bench(databases={"stock": database}, max_rows=2) as bench:
        error = await bench.error(query("SELECT * FROM stock"))
        assert "more than max_rows (2) rows" in error
        limited = query("SELECT * FROM stock ORDER BY sku LIMIT 2")
        assert await bench.outputs(limited, outputs={"n": "size(blocks.b1.resultSet)"}) == {"n": 2}


async def test_a_mistake_is_told_with_the_databases_words_and_without_values(open_bench: Open, database: str) -> None:
    async with open_bench(databases={"stock": database}) as bench:
        error = await bench.error(query("SELECT x FROM nowhere WHERE a = :a", params={"a": "secret"}))
        assert "nowhere" in error
        assert "secret" not in error
        assert "[stock]" in error
        missing = await bench.error(query("SELECT :a AS a", params={"b": 1}))
        assert "no value for a [params]" in missing


async def test_more_queries_than_connections(open_bench: Open, database: str) -> None:
    async with open_bench(databases={"stock": database}, max_database_connections=2, max_threads=8) as bench:
        branches = [
            b(10 + i, "SerialFlowBp", default=[{**query("SELECT 1 AS x"), "id": 100 + i, "name": f"q{i}"}])
            for i in range(20)
        ]
        outputs = await bench.outputs(
            b(1, "ParallelFlowBp", default=branches), outputs={"x": "blocks.q7.resultSet[0].x"}
        )
        assert outputs == {"x": 1}
        assert bench.engine.services.databases.statistics().size <= 2


# ---- which database ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("databases", "name", "cause"),
    [
        ({}, None, "which database is not said [database] — none is configured"),
        ({}, "stock", "there is no database 'stock'"),
        ({"a": "sqlite://", "b": "sqlite://"}, None, "which database is not said [database] — configured: a, b"),
        ({"a": "sqlite://", "b": "sqlite://"}, "c", "configured: a, b"),
        ({"a": "nonsense"}, None, "check its URL under [databases]"),
        ({"a": "oracle+nodriver://h/x"}, None, "check its URL under [databases]"),
        ({"a": "postgresql+psycopg://u:secret@127.0.0.1:1/x"}, None, "The database refused the statement"),
    ],
)
async def test_only_configured_databases(
    open_bench: Open, databases: dict[str, str], name: str | None, cause: str
) -> None:
    async with open_bench(databases=databases) as bench:
        more = {} if name is None else {"database": name}
        error = await bench.error(query("SELECT 1", **more))
    assert cause in error
    assert "secret" not in error


async def test_two_databases_are_told_apart(open_bench: Open, tmp_path: Path) -> None:
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("a", "b")}
    async with open_bench(databases=urls) as bench:
        await bench.outputs(change("CREATE TABLE t (x INTEGER)", database="a"))
        await bench.outputs(change("INSERT INTO t VALUES (1)", database="a"))
        rows = await bench.outputs(query("SELECT x FROM t", database="a"), outputs={"r": "blocks.b1.resultSet"})
        assert rows == {"r": [{"x": 1}]}
        assert "no such table" in await bench.error(query("SELECT x FROM t", database="b"))
        assert "returns no rows" in await bench.error(query("PRAGMA case_sensitive_like = 1", database="b"))


async def test_closing_the_engine_does_not_wait_for_a_long_query(open_bench: Open, tmp_path: Path) -> None:
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT MAX(i) AS m FROM n"
    async with open_bench(databases={"a": f"sqlite:///{tmp_path}/a.db"}) as bench:
        run_id = await bench.submit(query(slow), outputs={"m": "blocks.b1.resultSet[0].m"})
        await bench.until(run_id, State.RUNNING)
        await asyncio.sleep(0.05)
    async with open_bench(databases={"a": f"sqlite:///{tmp_path}/a.db"}) as bench:
        assert (await bench.engine.result(run_id, 60)).outputs == {"m": 1_000_000}
