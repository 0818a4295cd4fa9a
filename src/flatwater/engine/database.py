"""The databases that blocks may use beside the store: configured by name, each behind a small pool.

Everything here that touches a database blocks and belongs into a thread; `gate` keeps the threads of one slow database
from becoming all threads there are.
"""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import create_engine, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.errors import InputError, LimitError, RunError

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Engine

READ_ONLY: Final = {
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET TRANSACTION READ ONLY",
    "mariadb": "SET TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
READ_WRITE: Final = {"sqlite": "PRAGMA query_only = OFF"}
"""Only SQLite keeps the mode beyond the transaction."""
_PLAIN: Final = (str, int, float, bool, list, dict, bytes, datetime.date, datetime.time, datetime.timedelta, uuid.UUID)
_LONG: Final = 2**63
_CAUSE_CHARS: Final = 500


class DatabaseError(RunError, code="database"):
    """The database refused the statement."""


class Databases:
    """Pools by name, opened with their first use, closed with the engine."""

    kind = "database pools"

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        max_connections: int = 2,
        max_rows: int = 10_000,
        recycle_s: float = 600.0,
        ledger: Ledger | None = None,
        name: str = "databases of blocks",
    ) -> None:
        check_bound("max_connections", max_connections, where=name)
        check_bound("max_rows", max_rows, where=name)
        self.name = name
        self._urls = dict(urls)
        self._max_connections = max_connections
        self._max_rows = max_rows
        self._recycle_s = recycle_s
        self._engines: dict[str, Engine] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._lock = Lock()
        if ledger is not None:
            ledger.register(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; one that is in use closes when its statement is over. Twice is once."""
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.dispose()

    def statistics(self) -> Usage:
        """``size`` connections are open, of ``bound`` allowed."""
        with self._lock:
            pools = [engine.pool for engine in self._engines.values()]
        size = sum(pool.checkedin() + pool.checkedout() for pool in pools)  # type: ignore[attr-defined]
        return Usage(size=size, bound=len(self._urls) * self._max_connections)

    def choose(self, name: str | None) -> str:
        """The database that ``name`` means; without a name the only one. Raises `InputError` with the known ones."""
        if name is None and len(self._urls) == 1:
            return next(iter(self._urls))
        if name is not None and name in self._urls:
            return name
        known = ", ".join(sorted(self._urls))
        what = f"there is no database {name!r}" if name else "which database is not said"
        hint = f"configured: {known}" if known else "none is configured: add it under [databases]"
        raise InputError(what, where="database", hint=hint)

    def gate(self, name: str) -> asyncio.Semaphore:
        """Held while a thread works on this database: as many as it may have connections."""
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = asyncio.Semaphore(self._max_connections)
        return gate

    # ---- in a thread ----------------------------------------------------------------------------

    def query(self, name: str, sql: str, params: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """Rows as plain JSON values, in a read-only transaction.

        Raises `DatabaseError`; `LimitError` beyond ``max_rows``.
        """
        with self._transaction(name, READ_ONLY) as connection:
            stream = connection.execution_options(stream_results=True, max_row_buffer=1_000)
            with closing(_run(stream, sql, params)) as result:
                if not result.returns_rows:
                    raise DatabaseError("the statement returns no rows", where=name, hint="use JdbcExecuteBp")
                keys = list(result.keys())
                rows = result.fetchmany(self._max_rows + 1)
            if len(rows) > self._max_rows:
                hint = "ask for fewer (LIMIT, WHERE), or raise max_rows"
                raise LimitError(f"the query gives more than max_rows ({self._max_rows:,}) rows", where=name, hint=hint)
            return [dict(zip(keys, map(plain, row), strict=True)) for row in rows]

    def execute(self, name: str, sql: str, params: Mapping[str, Any] | None) -> int:
        """Run and commit one statement; the number of rows it changed, -1 when the database does not say."""
        with self._transaction(name, READ_WRITE) as connection:
            count = int(_run(connection, sql, params).rowcount)
            connection.commit()
            return count

    @contextmanager
    def _transaction(self, name: str, modes: Mapping[str, str]) -> Iterator[Connection]:
        try:
            with self._engine(name).connect() as connection:
                mode = modes.get(connection.dialect.name)
                if mode is not None:
                    connection.exec_driver_sql(mode)
                yield connection
        except DBAPIError as error:
            raise DatabaseError(_cause(error.orig), where=name) from None
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            raise DatabaseError(_cause(error), where=name, hint=_hint(error)) from None

    def _engine(self, name: str) -> Engine:
        with self._lock:
            engine = self._engines.get(name)
            if engine is None:
                engine = self._engines[name] = create_engine(
                    self._urls[name],
                    pool_size=self._max_connections,
                    max_overflow=0,
                    pool_recycle=int(self._recycle_s),
                    pool_pre_ping=True,
                    hide_parameters=True,
                )
            return engine


def _run(connection: Connection, sql: str, params: Mapping[str, Any] | None) -> CursorResult[Any]:
    """Without parameters the text goes to the driver as it is; with them ``:name`` is a place for one."""
    if params is None:
        return connection.execution_options(no_parameters=True).exec_driver_sql(sql)
    statement = text(sql)
    if missing := sorted(statement.compile().params.keys() - params.keys()):
        hint = r"a colon that begins no name is written \:"
        raise InputError(f"no value for {', '.join(missing)}", where="params", hint=hint)
    return connection.execute(statement, params)


def plain(value: Any) -> Any:
    """A database value as JSON can hold it: exact numbers become numbers, what is unknown becomes text."""
    if isinstance(value, Decimal):
        if value.is_finite() and value == value.to_integral_value() and abs(value) < _LONG:
            return int(value)
        return float(value)
    return value if value is None or isinstance(value, _PLAIN) else str(value)


def _cause(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:_CAUSE_CHARS]


def _hint(error: Exception) -> str:
    if isinstance(error, (ArgumentError, NoSuchModuleError)):
        return "check its URL under [databases]"
    if isinstance(error, ModuleNotFoundError):
        return "install the driver that its URL names"
    return ""
