"""PostgreSQL by psycopg 3. One batch at a time per database, by the lock of a row, as on SQLite."""

# ruff: noqa: S608 - names come from the schema, values are parameters
from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Column
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL

from flatwater.store.dialect.base import Connection, Dialect, DisconnectedError, Fault, Liveness, kind_of
from flatwater.store.dialect.sqlite import on_conflict
from flatwater.store.statement import Statement

_CREATING = 4_850_350_350  # any number: the advisory lock of whoever creates the tables
_FAULTS = {
    "55P03": Fault.BUSY,  # lock not available
    "40P01": Fault.BUSY,  # deadlock
    "40001": Fault.BUSY,  # serialization failure
    "57014": Fault.BUSY,  # canceled by a time-out
    "53100": Fault.FULL,  # disk full
    "53200": Fault.FULL,  # out of memory
    "58030": Fault.FULL,  # I/O error
    "25006": Fault.FULL,  # read-only: a standby, or the administrator's wish
    "53300": Fault.LOST,  # too many connections
    "57P01": Fault.LOST,  # the server shuts down
    "57P02": Fault.LOST,
    "57P03": Fault.LOST,  # the server starts up
    "25P03": Fault.LOST,  # idle in transaction for too long
    "XX001": Fault.DAMAGED,
    "XX002": Fault.DAMAGED,
    "23505": Fault.UNIQUE,
}
# The writer looks rows up by key. Plans kept from when a table was small read all of it with each batch (a hash join),
# and a bitmap scan of the queue reads every run that was ever in it; an index scan remembers which are dead.
_WRITING = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off; SET jit = off"
_TYPES = {"real": "float8", "int": "int8", "text": "text"}


class Postgres(Dialect):
    name = "postgresql"
    sql = PGDialect_psycopg()  # type: ignore[no-untyped-call]
    driver_error = psycopg.Error

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        super().__init__(url.set(drivername="postgresql+psycopg"), busy_timeout_s)

    def connect(self, *, readonly: bool = False) -> Connection:
        arguments, options = self.sql.create_connect_args(self.url)  # type: ignore[no-untyped-call]
        try:
            connection = psycopg.connect(*arguments, **options, autocommit=True)
        except psycopg.Error as error:
            raise DisconnectedError(str(error).strip(), where=self.place, hint="is the server up?") from error
        millis = int(self.busy_timeout_s * 1000)
        # A process that is stopped inside a batch must not hold up the others for ever.
        connection.execute(f"SET lock_timeout = {millis}; SET idle_in_transaction_session_timeout = {6 * millis}")
        if not readonly:
            connection.execute(_WRITING)
        return connection

    def execute(self, connection: Connection, sql: str, params: dict[str, Any]) -> Any:
        return connection.execute(sql, params or None)

    def begin(self, connection: Connection) -> None:
        connection.execute("BEGIN; SELECT version_num FROM alembic_version FOR UPDATE")

    def begin_reading(self, connection: Connection) -> None:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    @contextlib.contextmanager
    def exclusive(self, connection: Connection) -> Iterator[None]:
        with super().exclusive(connection):
            connection.execute(f"SELECT pg_advisory_xact_lock({_CREATING})")
            yield

    def in_transaction(self, connection: Connection) -> bool:
        return bool(connection.info.transaction_status != TransactionStatus.IDLE)

    def _fault(self, error: BaseException) -> Fault:
        if not isinstance(error, psycopg.Error):
            return Fault.REFUSED
        if error.sqlstate is None:
            lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
            return Fault.LOST if lost else Fault.REFUSED
        fallback = Fault.LOST if error.sqlstate.startswith("08") else Fault.REFUSED
        return _FAULTS.get(error.sqlstate, fallback)

    def liveness(self, connection: Connection) -> Liveness:
        return AdvisoryLiveness(connection)

    def tables(self, connection: Connection) -> set[str]:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return {name for (name,) in rows.fetchall()}

    def check(self, connection: Connection) -> list[str]:
        problems = []
        for table in sorted(self.tables(connection)):
            try:
                connection.execute(f"SELECT count(CAST(t AS text)) FROM {self._quote(table)} AS t").fetchone()
            except psycopg.Error as error:
                problems.append(f"{table}: {error}")
                break  # the transaction is over
        return problems

    def size_bytes(self, connection: Connection) -> int:
        return int(connection.execute("SELECT pg_database_size(current_database())").fetchone()[0])

    def sessions(self, connection: Connection) -> list[tuple[str, str, float]]:
        rows = connection.execute(
            "SELECT coalesce(usename, '?') || ' ' || pid, coalesce(state, '?') || ': ' || left(query, 80),"
            " greatest(coalesce(extract(epoch FROM clock_timestamp() - state_change), 0), 0)::float8"
            " FROM pg_stat_activity WHERE datname = current_database() ORDER BY 3 DESC"
        )
        return [(who, what, seconds) for who, what, seconds in rows.fetchall()]

    def _own_session(self, connection: Connection) -> str:
        return str(connection.info.backend_pid)

    def listed(self, items: Sequence[str]) -> Any:
        return list(items)

    def _rows(self, columns: Sequence[tuple[str, str]]) -> str:
        fields = ", ".join(f"(r.v->>{i})::{kind} AS {self._quote(name)}" for i, (name, kind) in enumerate(columns))
        # jsonb is parsed once, json once for each column: nine times the work for a run's.
        return f"(SELECT {fields} FROM jsonb_array_elements(CAST(%(rows)s AS jsonb)) AS r(v))"

    def _type(self, column: Column[Any] | None) -> str:
        return _TYPES[kind_of(column)[0]]

    def _on_conflict(self, statement: Statement) -> str:
        return on_conflict(self, statement)


class AdvisoryLiveness:
    """An advisory lock of the writer's session: the server lets go when the connection ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _value(self, function: str, worker_id: str) -> bool:
        key = int.from_bytes(hashlib.sha256(worker_id.encode()).digest()[:8], "big", signed=True)
        return bool(self._connection.execute(f"SELECT {function}(%s)", (key,)).fetchone()[0])

    def hold(self, worker_id: str) -> None:
        if not self._value("pg_try_advisory_lock", worker_id):
            raise DisconnectedError(f"the server still keeps the old session of worker {worker_id}")

    def dead(self, worker_id: str) -> bool:
        return self._value("pg_try_advisory_xact_lock", worker_id)

    def forget(self, worker_id: str) -> None:
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
        if self._connection.execute(held).fetchone()[0]:
            self._value("pg_advisory_unlock", worker_id)
