"""The SQL family: statements on the databases that are configured by name, never on any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from flatwater.engine.block import BlockCall, block

Sql = Annotated[str, Meta(min_length=1, description="one statement; with params, :name is the place of a value")]
Values = Annotated[dict[str, Any] | None, Meta(description="values by name, bound by the driver, never pasted in")]
Database = Annotated[str | None, Meta(description="a name under [databases]; not needed when there is only one")]


class Rows(Struct, rename="camel"):
    """``resultSet`` holds one object a row, values by column name."""

    result_set: list[dict[str, Any]]


class Changed(Struct, rename="camel"):
    """``rowCount`` rows were changed; -1 when the database does not say."""

    row_count: int


@block("JdbcQueryBp", family="sql", camel=True)
async def query(sql: Sql, params: Values = None, database: Database = None, *, call: BlockCall) -> Rows:
    """Reads rows from a configured database, in a read-only transaction."""
    return Rows(await _in_thread(call.services.databases.query, sql, params, database, call))


@block("JdbcExecuteBp", family="sql", recovery="operator", camel=True)
async def execute(sql: Sql, params: Values = None, database: Database = None, *, call: BlockCall) -> Changed:
    """Changes a configured database: one statement, one transaction."""
    return Changed(await _in_thread(call.services.databases.execute, sql, params, database, call))


async def _in_thread(
    work: Callable[..., Any], sql: str, params: dict[str, Any] | None, database: str | None, call: BlockCall
) -> Any:
    databases = call.services.databases
    name = databases.choose(database)
    async with databases.gate(name):
        return await call.services.in_thread(work, {"name": name, "sql": sql, "params": params})
