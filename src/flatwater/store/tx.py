"""A transaction as its functions see it: SQLAlchemy Core statements, run by the driver without SQLAlchemy's own layers.

SQLAlchemy's execution costs 30–60 µs a statement; here a statement is compiled once per database and then costs what
the driver costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import msgspec
from sqlalchemy import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from flatwater.errors import FencedError
from flatwater.store.dialect import Connection, Dialect
from flatwater.store.statement import Op, Row, Statement


class Compiled(NamedTuple):
    sql: str
    constants: dict[str, Any]
    required: frozenset[str]


class Query:
    """A statement fixed at import, compiled at its first use on each kind of database."""

    __slots__ = ("_compiled", "clause")

    def __init__(self, clause: ClauseElement) -> None:
        self.clause = clause
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> Compiled:
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = compile_clause(self.clause, dialect)
        return found


def compile_clause(clause: ClauseElement, dialect: Dialect) -> Compiled:
    """SQL text, the values of its constants by name, and the names that the caller must give."""
    compiled = cast(SQLCompiler, clause.compile(dialect=dialect.sql))
    required = frozenset(name for name, bind in compiled.binds.items() if bind.required)
    return Compiled(str(compiled), dict(compiled.params), required)


class Tx:
    """One open transaction. Parameters go by name; lists become what `members` of the dialect wants."""

    __slots__ = ("connection", "dialect", "rows")

    def __init__(self, dialect: Dialect, connection: Connection) -> None:
        self.dialect = dialect
        self.connection = connection
        self.rows = 0

    def all(self, query: Query | ClauseElement, **params: Any) -> list[Row]:
        return [tuple(row) for row in self._execute(query, params).fetchall()]

    def first(self, query: Query | ClauseElement, **params: Any) -> Row | None:
        cursor = self._execute(query, params)
        row = cursor.fetchone()
        cursor.close()
        return row if row is None else tuple(row)

    def value(self, query: Query | ClauseElement, **params: Any) -> Any:
        """The first column of the first row, or None."""
        row = self.first(query, **params)
        return None if row is None else row[0]

    def run(self, query: Query | ClauseElement, **params: Any) -> int:
        """Number of rows that a write matched."""
        return int(self._execute(query, params).rowcount)

    def apply(self, *ops: Op) -> None:
        """Do hot statements here and now."""
        for statement, row in ops:
            self.apply_rows(statement, [row])

    def apply_rows(self, statement: Statement, rows: list[Row]) -> None:
        """All rows in one execution.

        Raises:
            FencedError: a row of a fenced statement changed nothing.
        """
        rows = statement.merged(rows)
        sql = self.dialect.render(statement)
        cursor = self.dialect.execute(self.connection, sql, {"rows": encode_rows(rows)})
        self.rows += len(rows)
        if statement.fenced and cursor.rowcount < len(rows):
            raise FencedError(f"{statement.name} of {rows[0][0]}", hint="the run was taken over, ended or removed")

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """What happens inside is undone when it raises."""
        execute = self.dialect.execute
        execute(self.connection, "SAVEPOINT op", {})
        try:
            yield
        except BaseException:
            if self.dialect.in_transaction(self.connection):  # a full disk may have ended it
                execute(self.connection, "ROLLBACK TO SAVEPOINT op", {})
                execute(self.connection, "RELEASE SAVEPOINT op", {})
            raise
        execute(self.connection, "RELEASE SAVEPOINT op", {})

    def _execute(self, query: Query | ClauseElement, params: dict[str, Any]) -> Any:
        compiled = query.compiled(self.dialect) if isinstance(query, Query) else compile_clause(query, self.dialect)
        sql, constants, required = compiled
        if params.keys() != required:
            raise TypeError(f"parameters {sorted(params)} given, {sorted(required)} wanted by: {sql}")
        for name, value in params.items():
            if isinstance(value, (list, tuple)):
                params[name] = self.dialect.listed(value)
        return self.dialect.execute(self.connection, sql, {**constants, **params})


def encode_rows(rows: list[Row]) -> str:
    """JSON text of the rows. Characters that databases cannot keep in text (NUL, half surrogates) are replaced."""
    try:
        encoded = msgspec.json.encode(rows)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode([tuple(_storable(item) for item in row) for row in rows])
    if b"\\u0000" in encoded:  # may also be the text of a JSON value that is harmless
        encoded = msgspec.json.encode([tuple(_storable(item) for item in row) for row in rows])
    return encoded.decode()


def _storable(item: Any) -> Any:
    if isinstance(item, str):
        return item.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return item
