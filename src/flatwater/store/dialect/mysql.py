"""MariaDB (10.6 or later) and MySQL (8) by PyMySQL. One batch at a time per database, by the lock of a row."""

# ruff: noqa: S608 - names come from the schema, values are parameters
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pymysql
from pymysql.constants import CLIENT
from sqlalchemy import Column
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.engine import URL

from flatwater.errors import StoreError
from flatwater.store.dialect.base import Connection, Dialect, DisconnectedError, Fault, Liveness, kind_of
from flatwater.store.statement import Statement

_FAULTS = {
    **dict.fromkeys((1205, 1213, 1020, 3024, 3572), Fault.BUSY),
    **dict.fromkeys((1021, 1114, 1026, 1030, 1041, 1290, 1836), Fault.FULL),
    **dict.fromkeys((0, 1040, 1053, 1152, 1927, 2002, 2003, 2006, 2013, 2055, 4031), Fault.LOST),
    **dict.fromkeys((1034, 1194, 1195, 1712), Fault.DAMAGED),
    1062: Fault.UNIQUE,
}


class Mysql(Dialect):
    name = "mysql"
    sql = MySQLDialect_pymysql(paramstyle="pyformat")
    driver_error = pymysql.Error

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        super().__init__(url.set(drivername="mysql+pymysql"), busy_timeout_s)
        self._max_bytes = 1 << 20  # until the server has told

    def connect(self, *, readonly: bool = False) -> Connection:
        options = self.url.translate_connect_args(username="user")
        try:
            connection = pymysql.connect(
                **options, autocommit=True, charset="utf8mb4", collation="utf8mb4_bin", client_flag=CLIENT.FOUND_ROWS
            )
        except pymysql.Error as error:
            raise DisconnectedError(str(error), where=self.place, hint="is the server up?") from error
        level = "REPEATABLE READ" if readonly else "READ COMMITTED"
        row = self.execute(connection, "SELECT @@max_allowed_packet, VERSION()", {}).fetchone()
        self._max_bytes = int(row[0]) - 1024
        self.execute(connection, f"SET SESSION TRANSACTION ISOLATION LEVEL {level}", {})
        self.execute(connection, f"SET SESSION innodb_lock_wait_timeout = {max(1, int(self.busy_timeout_s))}", {})
        if "MariaDB" in row[1]:  # MySQL has nothing like it
            # A process that is stopped inside a batch must not hold up the others for ever.
            idle_s = max(1, int(6 * self.busy_timeout_s))
            self.execute(connection, f"SET SESSION idle_transaction_timeout = {idle_s}", {})
        return connection

    def execute(self, connection: Connection, sql: str, params: dict[str, Any]) -> Any:
        cursor = connection.cursor()
        query = cursor.mogrify(sql, params or None)
        if len(query) * 4 > self._max_bytes and (size := len(query.encode())) > self._max_bytes:
            # The server would cut the connection, which looks like an accident that is worth another try.
            raise pymysql.DataError(1153, f"a statement of {size} bytes, max_allowed_packet is {self._max_bytes}")
        cursor.execute(query)
        return cursor

    def begin(self, connection: Connection) -> None:
        self.execute(connection, "START TRANSACTION", {})
        self.execute(connection, "SELECT version_num FROM alembic_version FOR UPDATE", {})

    def begin_reading(self, connection: Connection) -> None:
        self.execute(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY", {})

    @contextlib.contextmanager
    def exclusive(self, connection: Connection) -> Iterator[None]:
        """Changes of tables cannot be undone here; a lock by name at least lets only one process make them."""
        if not self.execute(connection, "SELECT GET_LOCK('flatwater.create', 60)", {}).fetchone()[0]:
            raise StoreError("another process has been creating tables for a minute", where=self.place)
        try:
            yield
        finally:
            self.execute(connection, "SELECT RELEASE_LOCK('flatwater.create')", {})

    def in_transaction(self, connection: Connection) -> bool:
        return bool(connection.open)  # the driver does not tell; a ROLLBACK too many does nothing

    def _fault(self, error: BaseException) -> Fault:
        if not isinstance(error, pymysql.Error):
            return Fault.REFUSED
        code = error.args[0] if error.args else 0
        return _FAULTS.get(code if isinstance(code, int) else 0, Fault.REFUSED)

    def liveness(self, connection: Connection) -> Liveness:
        return NamedLiveness(self, connection)

    def tables(self, connection: Connection) -> set[str]:
        return {row[0] for row in self.execute(connection, "SHOW TABLES", {}).fetchall()}

    def check(self, connection: Connection) -> list[str]:
        problems = []
        for table in sorted(self.tables(connection)):
            rows = self.execute(connection, f"CHECK TABLE {self._quote(table)}", {}).fetchall()
            problems += [f"{row[0]}: {row[3]}" for row in rows if row[2] not in ("status", "note") or row[3] != "OK"]
        return problems

    def size_bytes(self, connection: Connection) -> int:
        sql = "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = DATABASE()"
        return int(self.execute(connection, sql, {}).fetchone()[0] or 0)

    def sessions(self, connection: Connection) -> list[tuple[str, str, float]]:
        rows = self.execute(
            connection,
            "SELECT CONCAT(user, ' ', id), CONCAT(command, ': ', COALESCE(LEFT(info, 80), '')), time"
            " FROM information_schema.processlist WHERE db = DATABASE() ORDER BY time DESC",
            {},
        ).fetchall()
        return [(who, what, float(seconds)) for who, what, seconds in rows]

    def _own_session(self, connection: Connection) -> str:
        return str(connection.thread_id())

    def _rows(self, columns: Sequence[tuple[str, str]]) -> str:
        fields = ", ".join(
            f"{self._quote(name)} {kind} PATH '$[{index}]' ERROR ON ERROR" for index, (name, kind) in enumerate(columns)
        )
        return f"JSON_TABLE(%(rows)s, '$[*]' COLUMNS ({fields}))"

    def _type(self, column: Column[Any] | None) -> str:
        kind, length = kind_of(column)
        if kind == "text":
            return f"VARCHAR({length})" if length else "LONGTEXT"
        return "DOUBLE" if kind == "real" else "BIGINT"

    def _on_conflict(self, statement: Statement) -> str:
        if statement.kind == "upsert":
            names = map(self._quote, statement.assignments())
            return " ON DUPLICATE KEY UPDATE " + ", ".join(f"{name} = VALUES({name})" for name in names)
        key = [column.name for column in statement.table.primary_key if column.name in statement.columns]
        if not key:
            return ""
        same = " AND ".join(f"o.{self._quote(name)} = v.{self._quote(name)}" for name in key)
        return f" AND NOT EXISTS (SELECT 1 FROM {self._quote(statement.table.name)} AS o WHERE {same})"

    def _update(self, statement: Statement, source: str) -> str:
        table = self._quote(statement.table.name)
        values = self._set(statement, prefix=f"{table}.")
        return f"UPDATE {table} JOIN {source} AS v ON {self._match(statement)} SET {values}"

    def _delete(self, statement: Statement, source: str) -> str:
        table = self._quote(statement.table.name)
        return f"DELETE {table} FROM {table} JOIN {source} AS v ON {self._match(statement)}"


class NamedLiveness:
    """A lock by name of the writer's session: the server lets go when the connection ends."""

    def __init__(self, dialect: Mysql, connection: Connection) -> None:
        self._dialect = dialect
        self._connection = connection

    def _value(self, call: str, worker_id: str) -> Any:
        name = {"name": f"flatwater.{worker_id}"}
        return self._dialect.execute(self._connection, f"SELECT {call}", name).fetchone()[0]

    def hold(self, worker_id: str) -> None:
        if not self._value("GET_LOCK(%(name)s, 0)", worker_id):
            raise DisconnectedError(f"the server still keeps the old session of worker {worker_id}")

    def dead(self, worker_id: str) -> bool:
        return self._value("IS_USED_LOCK(%(name)s)", worker_id) is None

    def forget(self, worker_id: str) -> None:
        self._value("RELEASE_LOCK(%(name)s)", worker_id)
