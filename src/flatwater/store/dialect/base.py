"""What a database must offer, and the SQL of hot statements as far as it is common."""

# ruff: noqa: S608 - names come from the schema, values are parameters
from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Protocol, TypeAlias

import msgspec
from sqlalchemy import Column, Double, Integer, String
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import Dialect as SqlDialect

from flatwater.errors import DamagedError, StoreError, StoreFullError
from flatwater.store.statement import Statement

Connection: TypeAlias = Any
"""A DBAPI connection of the dialect's driver."""


class Fault(Enum):
    """What a driver's error means for the writer."""

    BUSY = "busy"  # another holds a lock: try again
    FULL = "full"  # no room or the device fails: try again, refuse what may be refused
    LOST = "lost"  # the connection is gone: open another
    DAMAGED = "damaged"
    REFUSED = "refused"  # the statement or its data are wrong
    UNIQUE = "unique"


class DisconnectedError(StoreError):
    """The database cannot be reached."""


class UnknownOutcomeError(StoreError):
    """The connection broke during COMMIT, so whether it is stored is not known."""


class Liveness(Protocol):
    """A lock that lives exactly as long as a worker's process."""

    def hold(self, worker_id: str) -> None:
        """Take the lock; again is once."""

    def dead(self, worker_id: str) -> bool:
        """Whether nobody holds it."""

    def forget(self, worker_id: str) -> None:
        """Let go of it, and remove what a dead worker left."""


class Dialect(abc.ABC):
    """One database at one URL. Connections are in autocommit; transactions are begun here."""

    name: str
    sql: SqlDialect
    driver_error: type[Exception]

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        self.url = url
        self.busy_timeout_s = busy_timeout_s
        self._quote = self.sql.identifier_preparer.quote
        self._rendered: dict[Statement, str] = {}

    @property
    def place(self) -> str:
        """The database for messages, without a password."""
        return self.url.render_as_string(hide_password=True)

    @abc.abstractmethod
    def connect(self, *, readonly: bool = False) -> Connection:
        """Raises StoreError, DamagedError."""

    @abc.abstractmethod
    def execute(self, connection: Connection, sql: str, params: dict[str, Any]) -> Any:
        """Run one statement with parameters by name; returns the DBAPI cursor."""

    @abc.abstractmethod
    def begin(self, connection: Connection) -> None:
        """Begin the one writing transaction that the database allows at a time."""

    @abc.abstractmethod
    def begin_reading(self, connection: Connection) -> None:
        """Begin a transaction that sees one state of the database."""

    @abc.abstractmethod
    def in_transaction(self, connection: Connection) -> bool: ...

    @abc.abstractmethod
    def _fault(self, error: BaseException) -> Fault: ...

    @abc.abstractmethod
    def liveness(self, connection: Connection) -> Liveness: ...

    @abc.abstractmethod
    def tables(self, connection: Connection) -> set[str]: ...

    @abc.abstractmethod
    def check(self, connection: Connection) -> list[str]:
        """All that is wrong with the stored data, [] when it is sound. Reads everything."""

    @abc.abstractmethod
    def size_bytes(self, connection: Connection) -> int: ...

    @abc.abstractmethod
    def sessions(self, connection: Connection) -> list[tuple[str, str, float]]:
        """Connections to this database that its server knows: (who, doing what, seconds in that state)."""

    def survey(self) -> list[tuple[str, str, float]]:
        """:meth:`sessions`, of any database at all, over a connection that is opened for it and left out."""
        connection = self.connect(readonly=True)
        try:
            own = self._own_session(connection)
            return [row for row in self.sessions(connection) if row[0].rpartition(" ")[2] != own]
        except self.driver_error as error:
            raise self.error(error) from error
        finally:
            self.close(connection)

    def _own_session(self, connection: Connection) -> str:
        """The number under which :meth:`sessions` lists this connection."""
        raise NotImplementedError

    @contextlib.contextmanager
    def exclusive(self, connection: Connection) -> Iterator[None]:
        """A transaction for changing tables that only one process at a time is in."""
        self.execute(connection, "BEGIN", {})
        try:
            yield
            self.commit(connection)
        except BaseException:
            self.rollback(connection)
            raise

    def commit(self, connection: Connection) -> None:
        self.execute(connection, "COMMIT", {})

    def rollback(self, connection: Connection) -> None:
        if self.in_transaction(connection):
            self.execute(connection, "ROLLBACK", {})

    def close(self, connection: Connection) -> None:
        connection.close()

    def let_go(self) -> None:  # noqa: B027 - most have nothing
        """Free what this process holds beside its connections."""

    def listed(self, items: Sequence[str]) -> Any:
        """A list parameter as the driver wants it."""
        return msgspec.json.encode(items).decode()

    def fault(self, error: BaseException) -> Fault:
        return Fault.LOST if isinstance(error, DisconnectedError) else self._fault(error)

    def error(self, error: BaseException) -> StoreError:
        """The driver's error as one of ours, saying where and what to do."""
        if isinstance(error, StoreError):
            return error
        fault, text = self.fault(error), f"{type(error).__name__}: {error}"
        if fault is Fault.FULL:
            return StoreFullError(
                text,
                where=self.place,
                hint="free some room on the device, see that it can be written, or move the database",
            )
        if fault is Fault.DAMAGED:
            return DamagedError(
                text, where=self.place, hint="restore a backup, or save what `flatwater db check` can read"
            )
        if fault is Fault.BUSY:
            return StoreError(
                f"locked by another process ({text})", where=self.place, hint="end the process that holds it"
            )
        return StoreError(text, where=self.place)

    # --- hot statements -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _rows(self, columns: Sequence[tuple[str, str]]) -> str:
        """A FROM item that yields the JSON parameter :rows as a table with these (name, SQL type) columns."""

    @abc.abstractmethod
    def _type(self, column: Column[Any] | None) -> str: ...

    @abc.abstractmethod
    def _on_conflict(self, statement: Statement) -> str: ...

    def render(self, statement: Statement) -> str:
        """SQL that applies all rows of parameter `rows` (JSON: a list of lists) at once."""
        sql = self._rendered.get(statement)
        if sql is None:
            sql = self._rendered[statement] = self._render(statement)
        return sql

    def _render(self, statement: Statement) -> str:
        source = self._rows([(name, self._type(statement.table.c.get(name))) for name in statement.columns])
        if statement.kind == "text":
            return statement.sql.replace("{rows}", source)
        makers = {"insert": self._insert, "upsert": self._insert, "update": self._update, "delete": self._delete}
        return makers[statement.kind](statement, source)

    def _insert(self, statement: Statement, source: str) -> str:
        columns = ", ".join(map(self._quote, statement.columns))
        values = ", ".join(f"v.{self._quote(name)}" for name in statement.columns)
        table = self._quote(statement.table.name)
        return (
            f"INSERT INTO {table} ({columns}) SELECT {values} FROM {source} AS v WHERE 1 = 1"
            f"{self._on_conflict(statement)}"
        )

    def _update(self, statement: Statement, source: str) -> str:
        table = self._quote(statement.table.name)
        return f"UPDATE {table} SET {self._set(statement)} FROM {source} AS v WHERE {self._match(statement)}"

    def _delete(self, statement: Statement, source: str) -> str:
        table = self._quote(statement.table.name)
        key = ", ".join(map(self._quote, statement.key))
        wanted = ", ".join(f"v.{self._quote(name)}" for name in statement.key)
        return f"DELETE FROM {table} WHERE ({key}) IN (SELECT {wanted} FROM {source} AS v)"

    def _set(self, statement: Statement, prefix: str = "") -> str:
        pairs = statement.assignments().items()
        return ", ".join(f"{prefix}{self._quote(name)} = {value or f'v.{self._quote(name)}'}" for name, value in pairs)

    def _match(self, statement: Statement) -> str:
        table = self._quote(statement.table.name)
        pairs = [f"{table}.{self._quote(name)} = v.{self._quote(name)}" for name in statement.key]
        return " AND ".join([*pairs, *([f"({statement.given})"] if statement.given else [])])


def kind_of(column: Column[Any] | None) -> tuple[str, int]:
    """("real" | "int" | "text", length or 0)."""
    if column is None:
        return "text", 0
    if isinstance(column.type, Double):
        return "real", 0
    if isinstance(column.type, Integer):
        return "int", 0
    length = column.type.length if isinstance(column.type, String) else None
    return "text", length or 0
