"""SQLite: WAL, synchronous=FULL, one writer at a time by BEGIN IMMEDIATE."""

# ruff: noqa: S608 - names come from the schema, values are parameters
from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL

from flatwater.errors import DamagedError, StoreError
from flatwater.store.dialect.base import Connection, Dialect, Fault, Liveness
from flatwater.store.statement import Statement

HEADER = b"SQLite format 3\x00"
NEEDED = (3, 35)  # UPDATE … FROM and JSON functions
_FAULTS = {
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_PROTOCOL: Fault.BUSY,
    sqlite3.SQLITE_FULL: Fault.FULL,
    sqlite3.SQLITE_IOERR: Fault.FULL,
    sqlite3.SQLITE_READONLY: Fault.FULL,
    sqlite3.SQLITE_CANTOPEN: Fault.FULL,
    sqlite3.SQLITE_CORRUPT: Fault.DAMAGED,
    sqlite3.SQLITE_NOTADB: Fault.DAMAGED,
}
_UNIQUE = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)


class Sqlite(Dialect):
    name = "sqlite"
    sql = SQLiteDialect_pysqlite(paramstyle="named")
    driver_error = sqlite3.Error

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        super().__init__(url, busy_timeout_s)
        self._liveness = FileLiveness(self.path)

    @property
    def path(self) -> Path:
        return Path(self.url.database or "")

    def connect(self, *, readonly: bool = False) -> Connection:
        self._inspect(readonly=readonly)
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=self.busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            self._prepare(connection, readonly=readonly)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self.error(error) from error
        return connection

    def _inspect(self, *, readonly: bool) -> None:
        """Say what is wrong with the file before SQLite says less."""
        if sqlite3.sqlite_version_info < NEEDED:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old", hint=f"{NEEDED} or later is needed")
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreError("its folder does not exist", where=str(self.path), hint=f"mkdir -p {folder}")
        if self.path.is_dir():
            raise StoreError("it is a folder", where=str(self.path), hint="give the path of a file")
        if not self.path.exists() and readonly:
            raise StoreError("the file does not exist", where=str(self.path))
        if not os.access(folder, os.W_OK) or (self.path.exists() and not os.access(self.path, os.R_OK | os.W_OK)):
            raise StoreError("no permission to write", where=str(self.path), hint="SQLite writes beside its file too")
        if self.path.exists():
            with self.path.open("rb") as file:
                head = file.read(len(HEADER))
            if head and head != HEADER:
                raise DamagedError(
                    "it does not begin like a SQLite database",
                    where=str(self.path),
                    hint="give another path, or restore a backup",
                )

    def _prepare(self, connection: sqlite3.Connection, *, readonly: bool) -> None:
        connection.execute("PRAGMA schema_version").fetchone()
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        for pragma in (
            "synchronous = FULL",
            "wal_autocheckpoint = 4000",
            "journal_size_limit = 67108864",
            "temp_store = MEMORY",
            "cache_size = -1000" if readonly else "cache_size = -4000",
            "query_only = 1" if readonly else "query_only = 0",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def execute(self, connection: Connection, sql: str, params: dict[str, Any]) -> Any:
        return connection.execute(sql, params)

    def begin(self, connection: Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")

    def begin_reading(self, connection: Connection) -> None:
        connection.execute("BEGIN")

    @contextlib.contextmanager
    def exclusive(self, connection: Connection) -> Iterator[None]:
        self.begin(connection)
        try:
            yield
            self.commit(connection)
        except BaseException:
            self.rollback(connection)
            raise

    def in_transaction(self, connection: Connection) -> bool:
        return bool(connection.in_transaction)

    def _fault(self, error: BaseException) -> Fault:
        code = getattr(error, "sqlite_errorcode", None)
        if code in _UNIQUE:
            return Fault.UNIQUE
        return Fault.REFUSED if code is None else _FAULTS.get(code & 0xFF, Fault.REFUSED)

    def liveness(self, connection: Connection) -> Liveness:
        return self._liveness

    def let_go(self) -> None:
        self._liveness.forget_all()

    def tables(self, connection: Connection) -> set[str]:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return {name for (name,) in rows}

    def check(self, connection: Connection) -> list[str]:
        problems = [text for (text,) in connection.execute("PRAGMA integrity_check(100)")]
        return [] if problems == ["ok"] else problems

    def size_bytes(self, connection: Connection) -> int:
        return sum(file.stat().st_size for suffix in ("", "-wal") if (file := Path(f"{self.path}{suffix}")).exists())

    def sessions(self, connection: Connection) -> list[tuple[str, str, float]]:
        return []  # there is no server to ask

    def survey(self) -> list[tuple[str, str, float]]:
        """Who has the file open, without opening it: opening would change the journal mode of a foreign database."""
        if not self.path.is_file():
            raise StoreError("the file does not exist", where=str(self.path))
        return [row for row in openers(self.path) if row[0].rpartition(" ")[2] != str(os.getpid())]

    def _rows(self, columns: Sequence[tuple[str, str]]) -> str:
        # The inner LIMIT keeps SQLite from flattening: `value` would be rendered again for each column.
        quoted = [(self._quote(name), index) for index, (name, _) in enumerate(columns)]
        fields = ", ".join(f"json_extract(r.value, '$[{index}]') AS {name}" for name, index in quoted)
        return f"(SELECT {fields} FROM (SELECT value FROM json_each(:rows) LIMIT -1) AS r)"

    def _type(self, column: Column[Any] | None) -> str:
        return ""

    def _on_conflict(self, statement: Statement) -> str:
        return on_conflict(self, statement)


def openers(file: Path) -> list[tuple[str, str, float]]:
    """There is no server to ask, but the kernel knows who has the file open: (command pid, how often, process's age).

    Processes of other users are seen by root alone.
    """
    found = []
    target = os.path.realpath(file)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            count = sum(os.path.realpath(fd) == target for fd in (folder / "fd").iterdir())
            if count:
                what = f"{count} open file{'s' if count > 1 else ''}"
                who = f"{(folder / 'comm').read_text('utf-8', 'replace').strip()} {folder.name}"
                found.append((who, what, _age_s(folder)))
    return sorted(found, key=lambda row: -row[2])


def _age_s(folder: Path) -> float:
    started = int((folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK"))


def on_conflict(dialect: Dialect, statement: Statement) -> str:
    """The clause that SQLite took over from PostgreSQL."""
    quote = dialect.sql.identifier_preparer.quote
    key = ", ".join(quote(column.name) for column in statement.table.primary_key)
    if statement.kind == "insert":
        return f" ON CONFLICT ({key}) DO NOTHING"
    values = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in statement.assignments())
    return f" ON CONFLICT ({key}) DO UPDATE SET {values}"


class FileLiveness:
    """A file per worker beside the database, locked with flock: the system lets go when the process dies."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._held: dict[str, int] = {}

    def _path(self, worker_id: str) -> Path:
        return Path(f"{self._database}-worker-{worker_id}")

    def hold(self, worker_id: str) -> None:
        if worker_id in self._held:
            return
        file = os.open(self._path(worker_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held[worker_id] = file

    def dead(self, worker_id: str) -> bool:
        try:
            file = os.open(self._path(worker_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def forget_all(self) -> None:
        for worker_id in list(self._held):
            self.forget(worker_id)

    def forget(self, worker_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(worker_id).unlink()
        file = self._held.pop(worker_id, None)
        if file is not None:
            os.close(file)
