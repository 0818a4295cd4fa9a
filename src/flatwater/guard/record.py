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
from flatwater.errors import NotFoundError

log = logging.getLogger("flatwater.guard")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, at REAL, kind TEXT, pid INTEGER, body TEXT);
CREATE TABLE IF NOT EXISTS task (
    pid INTEGER, start TEXT, name TEXT, worker TEXT, at REAL, body TEXT, PRIMARY KEY (pid, start, name)
);
CREATE TABLE IF NOT EXISTS kill (name TEXT PRIMARY KEY, kills INTEGER, since REAL);
"""


class Event(msgspec.Struct, frozen=True):
    """One thing that happened: when (seconds since the epoch), what, to which pid, and its details."""

    at: float
    kind: str
    pid: int
    body: dict[str, Any]


class Record:
    """The record in a file; the newest ``max_events`` events and ``max_rows`` task rows are kept. A ``with``.

    A disk that is full ends no worker: what cannot be written is left out, which the log says.
    """

    kind = "record"

    def __init__(self, path: Path, *, max_events: int = 10_000, max_rows: int = 5_000, create: bool = True) -> None:
        check_bound("max_events", max_events, where="record")
        check_bound("max_rows", max_rows, where="record")
        if not create and not path.exists():
            raise NotFoundError("there is no record", where=str(path), hint="give the FILE of flatwater guard --record")
        self.name = str(path)
        self._max_events, self._max_rows = max_events, max_rows
        self._added = 0
        self._failing = False
        self._data = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._data.execute("PRAGMA journal_mode = WAL")
        self._data.execute("PRAGMA synchronous = NORMAL")
        self._data.executescript(_SCHEMA)

    def add(self, topic: str, pid: int = 0, /, **body: Any) -> None:
        """Write an event."""
        row = (time.time(), topic, pid, msgspec.json.encode(body).decode())
        with self._tried():
            self._data.execute("INSERT INTO event (at, kind, pid, body) VALUES (?, ?, ?, ?)", row)
            self._added += 1
            if self._added % 100 == 1:
                self._prune()

    def table(self, pid: int, start: str, worker: str, rows: list[dict[str, Any]]) -> None:
        """The task table of a process, in place of its former one."""
        now = time.time()
        with self._tried():
            self._data.execute("BEGIN")
            self._data.executemany(
                "INSERT OR REPLACE INTO task VALUES (?, ?, ?, ?, ?, ?)",
                [(pid, start, row["name"], worker, now, msgspec.json.encode(row).decode()) for row in rows],
            )
            self._data.execute("COMMIT")

    def kill(self, name: str, quarantine_after: int) -> bool:
        """Count a kill of a task; True when it is quarantined by this one."""
        changed = 0
        with self._tried():
            self._data.execute(
                "INSERT INTO kill VALUES (?, 1, NULL) ON CONFLICT (name) DO UPDATE SET kills = kills + 1", (name,)
            )
            changed = self._data.execute(
                "UPDATE kill SET since = ? WHERE name = ? AND since IS NULL AND kills >= ?",
                (time.time(), name, quarantine_after),
            ).rowcount
        return changed > 0

    def release(self, name: str) -> None:
        """Let a quarantined task run again, its kills forgotten. Raises NotFoundError for one that is not."""
        done = self._data.execute("DELETE FROM kill WHERE name = ? AND since IS NOT NULL", (name,))
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
        """Every row of every process's table, with its ``pid`` and ``worker``."""
        rows = self._data.execute("SELECT pid, start, worker, body FROM task ORDER BY at")
        return [
            {**msgspec.json.decode(body), "pid": pid, "start": start, "worker": worker}
            for pid, start, worker, body in rows
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

    def _prune(self) -> None:
        self._data.execute(
            "DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?",
            (max(self._max_events - 100, 0),),  # 100 are added until the next look
        )
        self._data.execute(
            "DELETE FROM task WHERE rowid IN (SELECT rowid FROM task ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (self._max_rows,),
        )
