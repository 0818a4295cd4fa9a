"""What the supervisor remembers: a small SQLite file of events, task tables and kills. Bounded in rows."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from flatwater.bounded import Usage, check_bound
from flatwater.errors import FlatwaterError, NotFoundError

log = logging.getLogger("flatwater.guard")

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, at REAL, kind TEXT, pid INTEGER, body TEXT);
CREATE TABLE IF NOT EXISTS task (
    pid INTEGER, start TEXT, name TEXT, worker TEXT, at REAL, body TEXT, PRIMARY KEY (pid, start, name)
);
CREATE TABLE IF NOT EXISTS kill (name TEXT PRIMARY KEY, kills INTEGER, since REAL);
CREATE TABLE IF NOT EXISTS kill_at (at REAL, name TEXT);
CREATE TABLE IF NOT EXISTS process (pid INTEGER, start TEXT, worker TEXT, at REAL, body TEXT, PRIMARY KEY (pid, start));
COMMIT;
"""
_OLDEST = {"event", "task", "kill"}  # the tables that every record has had
_TABLES = {*_OLDEST, "kill_at", "process"}
# A row that is replaced gets a new number: the clock may be set back.
_FORGET = {
    "event": "DELETE FROM event WHERE id <= (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?)",
    "task": "DELETE FROM task WHERE rowid <= (SELECT rowid FROM task ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
    "process": "DELETE FROM process WHERE rowid <= (SELECT rowid FROM process ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
}
_KILL_S = 86_400.0  # how long a kill counts towards a quarantine
_MAX_KILLS = 10_000


class Event(msgspec.Struct, frozen=True):
    """One thing that happened: when (seconds since the epoch), what, to which pid, and its details."""

    at: float
    kind: str
    pid: int
    body: dict[str, Any]


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What a process last told of itself: when, its level and its first one in bytes, and what trims gave back.

    ``trimmed`` is in bytes, by ``trims`` that took ``trim_s`` together; ``holders`` says which allocators have the
    memory while the level is well above the first one, else it is "".
    """

    pid: int
    start: str
    worker: str
    at: float
    level: int = 0
    base: int = 0
    trims: int = 0
    trimmed: int = 0
    trim_s: float = 0.0
    holders: str = ""


_STATE = ("level", "base", "trims", "trimmed", "trim_s", "holders")


class RecordError(FlatwaterError, code="record", status=503):
    """The guard's record cannot be used."""


class Record:
    """The record in a file: the newest ``max_events`` events, ``max_rows`` task rows and a fifth as many processes.

    A ``with``. A disk that is full ends no worker: what cannot be written is left out, which the log says. Raises
    RecordError for a file that cannot be opened or is none, and NotFoundError without ``create`` where there is none.
    """

    kind = "record"

    def __init__(self, path: Path, *, max_events: int = 10_000, max_rows: int = 5_000, create: bool = True) -> None:
        check_bound("max_events", max_events, where="record")
        check_bound("max_rows", max_rows, where="record")
        if not create and not path.exists():
            raise NotFoundError("there is no record", where=str(path), hint="give the FILE of flatwater guard --record")
        self.name = str(path)
        self._max_events, self._max_rows = max_events, max_rows
        self._slack = max(1, min(100, max_events // 10, max_rows // 10))  # rows to be written between two prunings
        self._written = self._slack
        self._failing = False
        try:
            self._data = sqlite3.connect(path, isolation_level=None, timeout=10)
            with self._closed_on_error():
                self._begin(create)
        except sqlite3.Error as error:
            writable = "give a file that this user may write, in a folder that it may write to"
            hint = writable if isinstance(error, sqlite3.OperationalError) else "give another file"
            raise RecordError(str(error), where=self.name, hint=hint) from None

    def _begin(self, create: bool) -> None:
        tables = {name for (name,) in self._data.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= _OLDEST and (tables or not create):
            raise RecordError("no guard has written this file", where=self.name, hint="give another one")
        self._data.execute("PRAGMA journal_mode = WAL")
        self._data.execute("PRAGMA synchronous = NORMAL")
        if not tables >= _TABLES:
            self._data.executescript(_SCHEMA)

    def add(self, topic: str, pid: int = 0, /, **body: Any) -> None:
        """Write an event."""
        row = (time.time(), topic, pid, msgspec.json.encode(body).decode())
        with self._tried():
            self._data.execute("INSERT INTO event (at, kind, pid, body) VALUES (?, ?, ?, ?)", row)
            self._prune(1)

    def table(self, pid: int, start: str, worker: str, rows: list[dict[str, Any]], /, **state: Any) -> None:
        """The task table of a process, in place of its former one; ``state`` is what it tells of itself (Process)."""
        now = time.time()
        told = msgspec.json.encode({key: state[key] for key in _STATE if key in state}).decode()
        with self._tried():
            self._data.execute("BEGIN")
            self._data.executemany(
                "INSERT OR REPLACE INTO task VALUES (?, ?, ?, ?, ?, ?)",
                [(pid, start, row["name"], worker, now, msgspec.json.encode(row).decode()) for row in rows],
            )
            self._data.execute("INSERT OR REPLACE INTO process VALUES (?, ?, ?, ?, ?)", (pid, start, worker, now, told))
            self._prune(1 + len(rows))
            self._data.execute("COMMIT")

    def kill(self, name: str, quarantine_after: int, *, within_s: float = _KILL_S) -> bool:
        """Count a kill of a task; True when it is quarantined by this one, ``quarantine_after`` within ``within_s``."""
        now, changed = time.time(), 0
        with self._tried():
            self._data.execute("BEGIN")
            self._data.execute("INSERT INTO kill_at VALUES (?, ?)", (now, name))
            self._data.execute(
                "DELETE FROM kill_at WHERE at <= ? OR at > ? OR rowid <= (SELECT max(rowid) FROM kill_at) - ?",
                (now - within_s, now, _MAX_KILLS),  # a clock that was set back makes kills of the future
            )
            (kills,) = self._data.execute("SELECT count(*) FROM kill_at WHERE name = ?", (name,)).fetchone()
            if kills >= quarantine_after:
                changed = self._data.execute(
                    "INSERT INTO kill VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
                    "SET kills = excluded.kills, since = excluded.since WHERE since IS NULL",
                    (name, kills, now),
                ).rowcount
            self._data.execute("COMMIT")
        return changed > 0

    def release(self, name: str) -> None:
        """Let a quarantined task run again, its kills forgotten. Raises NotFoundError for one that is not."""
        done = self._data.execute("DELETE FROM kill WHERE name = ? AND since IS NOT NULL", (name,))
        self._data.execute("DELETE FROM kill_at WHERE name = ?", (name,))
        if not done.rowcount:
            known = ", ".join(self.quarantined()) or "none"
            raise NotFoundError(f"task {name!r} is not quarantined", where=self.name, hint=f"quarantined: {known}")
        self.add("released", name=name)

    def quarantined(self) -> list[str]:
        """The names of quarantined tasks."""
        return [name for (name,) in self._data.execute("SELECT name FROM kill WHERE since IS NOT NULL ORDER BY name")]

    def events(self, *, limit: int = 1000) -> list[Event]:
        """The newest events, oldest first."""
        rows = self._data.execute("SELECT at, kind, pid, body FROM event ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [Event(at, kind, pid, msgspec.json.decode(body)) for at, kind, pid, body in reversed(rows)]

    def tasks(self) -> list[dict[str, Any]]:
        """The newest rows of all processes' tables, oldest first, with their ``pid`` and ``worker``."""
        query = "SELECT pid, start, worker, body FROM task ORDER BY rowid DESC LIMIT ?"
        return [_task(*row) for row in reversed(self._data.execute(query, (self._max_rows,)).fetchall())]

    def tasks_of(self, process: Process) -> list[dict[str, Any]]:
        """The rows of one process."""
        query = "SELECT pid, start, worker, body FROM task WHERE pid = ? AND start = ?"
        return [_task(*row) for row in self._data.execute(query, (process.pid, process.start))]

    def processes(self) -> list[Process]:
        """The processes that told of themselves last, oldest first."""
        query = "SELECT pid, start, worker, at, body FROM process ORDER BY rowid DESC LIMIT ?"
        rows = self._data.execute(query, (self._max_rows // 5,)).fetchall()
        return [
            Process(pid=pid, start=start, worker=worker, at=at, **msgspec.json.decode(body))
            for pid, start, worker, at, body in reversed(rows)
        ]

    def statistics(self) -> Usage:
        (count,) = self._data.execute("SELECT count(*) FROM event").fetchone()
        return Usage(size=count, bound=self._max_events)

    def close(self) -> None:
        """Close the file. Closing twice is allowed."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, RecordError):
            self._data.close()
            raise

    @contextmanager
    def _tried(self) -> Iterator[None]:
        try:
            yield
            self._failing = False
        except sqlite3.Error as error:
            if not self._failing:
                log.error("%s is not written: %s; events are lost until it can be", self.name, error)
            self._failing = True
            with suppress(sqlite3.Error):
                self._data.rollback()

    def _prune(self, written: int) -> None:
        """Forget what is old, when as many rows were written as there is slack for."""
        self._written += written
        if self._written < self._slack:
            return
        self._written = 0
        for table, most in (("event", self._max_events), ("task", self._max_rows), ("process", self._max_rows // 5)):
            self._data.execute(_FORGET[table], (max(most - self._slack, 0),))


def _task(pid: int, start: str, worker: str, body: str) -> dict[str, Any]:
    return {**msgspec.json.decode(body), "pid": pid, "start": start, "worker": worker}
