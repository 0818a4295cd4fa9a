"""A recording: one SQLite file with what processes used over time. Written by one recorder, read by anyone.

Rows are gathered by the ``add_*`` methods and written by ``flush``, one transaction a tick: who is killed loses the
tick. When the disk is full, rows wait (a bounded number) and the next flush tries again. The tables:
:mod:`flatwater.memory.recording_schema`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from flatwater.errors import ClosedError, ConflictError, StoreError, StoreFullError
from flatwater.memory import recording_schema as schema
from flatwater.memory import scan
from flatwater.memory.recording_thin import Retention, thin

# A clock that differs from what it should show by more than this was set; less is NTP at work.
JUMP_MS: Final = 1500
_SLEW_MS: Final = 50


class Sample(NamedTuple):
    """What one process used at ``t`` (ms of the recording). Bytes; times of the CPU in ms since its start.

    None: not looked at this time (``pss`` and what follows cost more than the rest), or not allowed.
    """

    process: int
    t: int
    rss: int
    vms: int
    user_ms: int
    system_ms: int
    threads: int
    minor_faults: int = 0
    major_faults: int = 0
    pss: int | None = None
    uss: int | None = None
    swap: int | None = None
    fds: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None


class RecordingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """``bytes`` on the disk (without the free pages ``free_bytes``), ``rows`` by seconds per row (0: raw), rows that
    wait for the disk, rows given up because too many waited, failed and succeeded flushes, rows merged away.
    """

    bytes: int
    free_bytes: int
    max_bytes: int
    rows: dict[int, int]
    pending: int
    max_pending: int
    dropped: int
    flushes: int
    failures: int
    thinned: int


class Clock:
    """The two clocks a recording needs: one that never jumps and goes on while the machine sleeps, and the wall."""

    def steady(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()


_SAMPLE: Final = (
    f"INSERT OR REPLACE INTO sample ({', '.join(Sample._fields)}) VALUES ({','.join('?' * len(Sample._fields))})"  # noqa: S608
)
_PROCESS: Final = (
    "INSERT INTO process (id, pid, start, boot, ppid, parent, name, command, chosen, started_t, first_t, control_group)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
_ENDED: Final = "UPDATE process SET ended_t = ?, exit_status = ?, oom = ? WHERE id = ?"
_RENAMED: Final = "UPDATE process SET name = ?, command = ? WHERE id = ?"
_EVENT: Final = "INSERT INTO event (t, process, kind, detail) VALUES (?,?,?,?)"
_GROUP: Final = "INSERT OR IGNORE INTO control_group (id, path) VALUES (?,?)"
_GROUP_SAMPLE: Final = (
    "INSERT OR REPLACE INTO group_sample (control_group, t, used, file, size_limit, oom_kills, highs)"
    " VALUES (?,?,?,?,?,?,?)"
)
_AGENT: Final = "INSERT OR REPLACE INTO agent_sample (process, figure, t, value) VALUES (?,?,?,?)"
_CLOCK: Final = "INSERT OR REPLACE INTO clock (t, offset) VALUES (?,?)"
_META: Final = "INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)"


class Recording:
    """Opens ``path`` for writing: made if it does not exist, continued if it is a recording.

    Raises StoreError when it cannot be written or is something else, ConflictError while another recorder writes it.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention: Retention | None = None,
        clock: Clock | None = None,
        max_pending: int = 100_000,
        busy_timeout_s: float = 2.0,
    ) -> None:
        self.path = path
        self._retention = retention or Retention()
        self._clock = clock or Clock()
        self._max_pending = max_pending
        self._pending: deque[tuple[str, Sequence[Any]]] = deque()
        self._dropped = self._flushes = self._failures = self._thinned = 0
        self._started, self._base, self._offset = self._clock.steady(), 0, 0  # s; ms; ms from t to the wall
        self._db: sqlite3.Connection | None = _opened(path, busy_timeout_s)
        try:
            self._begin()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The clock

    def now(self) -> int:
        """Milliseconds of the recording, and the wall clock noted where it was set."""
        t = self.at(self._clock.steady())
        offset = round(self._clock.wall() * 1000) - t
        moved = offset - self._offset
        if abs(moved) > _SLEW_MS:
            self._offset = offset
            self._put(_CLOCK, (t, offset))
            if abs(moved) > JUMP_MS:
                self.add_event(t, None, "clock", f"the wall clock was set by {moved / 1000:+.1f} s")
        return t

    def at(self, steady_s: float) -> int:
        """The recording's time of a moment in seconds since boot; negative before the recording began."""
        return self._base + round((steady_s - self._started) * 1000)

    # Rows

    def add_sample(self, sample: Sample) -> None:
        self._put(_SAMPLE, sample)

    def add_process(
        self, process: scan.Process, t: int, *, started_t: int, chosen: bool, parent: int | None, group: int | None
    ) -> int:
        """A process seen for the first time; returns the id that its samples carry."""
        self._last_process += 1
        row = (process.pid, process.start, self._boot, process.ppid, parent, process.name, process.command)
        self._put(_PROCESS, (self._last_process, *row, int(chosen), started_t, t, group))
        return self._last_process

    def end_process(self, process: int, t: int, status: int | None, *, oom: bool) -> None:
        """It ended; ``status`` as of waitpid(2), None when nobody told."""
        self._put(_ENDED, (t, status, int(oom), process))

    def rename_process(self, process: int, name: str, command: str) -> None:
        self._put(_RENAMED, (name, command, process))

    def add_event(self, t: int, process: int | None, kind: str, detail: str = "") -> None:
        """``kind``: start, end, exec, oom_kill, high, alert, clock, gap."""
        self._put(_EVENT, (t, process, kind, detail))

    def group(self, path: str) -> int:
        """The id of a control group."""
        if path not in self._groups:
            self._groups[path] = len(self._groups) + 1
            self._put(_GROUP, (self._groups[path], path))
        return self._groups[path]

    def add_group_sample(
        self, group: int, t: int, used: int | None, file: int | None, limit: int | None, oom_kills: int, highs: int
    ) -> None:
        self._put(_GROUP_SAMPLE, (group, t, used, file, limit, oom_kills, highs))

    def add_agent_sample(self, process: int, figure: str, t: int, value: float) -> None:
        self._put(_AGENT, (process, figure, t, value))

    def note(self, key: str, value: str) -> None:
        """A line of ``meta``."""
        self._put(_META, (key, value))

    def _put(self, statement: str, row: Sequence[Any]) -> None:
        if len(self._pending) >= self._max_pending:
            self._pending.popleft()
            self._dropped += 1
        self._pending.append((statement, row))

    def flush(self) -> str | None:
        """Write what was added, in one transaction. None when it is done; else why not: it waits for the next flush."""
        db = self._open()
        if not self._pending:
            return None
        try:
            with _transaction(db):
                for statement, rows in _runs(self._pending):
                    db.executemany(statement, rows)
        except sqlite3.Error as error:
            self._failures += 1
            return str(error)
        self._pending.clear()
        self._flushes += 1
        return None

    def resumed(self) -> dict[tuple[int, int], int]:
        """Processes of an earlier recording that had not ended then: (pid, start) → id, of this boot."""
        return dict(self._resumed)

    # Upkeep

    def thin(self, t: int) -> int:
        """Merge and drop what is older than the retention says; returns how many rows went. Raises StoreError."""
        db = self._open()
        try:
            with _transaction(db):
                gone = thin(db, self._retention, t)
        except sqlite3.Error as error:
            raise _failed(error, self.path) from error
        self._thinned += gone
        return gone

    def statistics(self) -> RecordingStatistics:
        """Counts the rows: some ten milliseconds in a large recording."""
        db = self._open()
        size, pages, free = (
            int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_size", "page_count", "freelist_count")
        )
        return RecordingStatistics(
            bytes=size * pages,
            free_bytes=size * free,
            max_bytes=self._retention.max_bytes,
            rows=dict(db.execute("SELECT step, COUNT(*) FROM sample GROUP BY step")),
            pending=len(self._pending),
            max_pending=self._max_pending,
            dropped=self._dropped,
            flushes=self._flushes,
            failures=self._failures,
            thinned=self._thinned,
        )

    def close(self) -> str | None:
        """Write what waits, and leave one plain file (no ``-wal``). Returns why rows were lost, if any were."""
        if self._db is None:
            return None
        self._put("DELETE FROM meta WHERE key = ?", ("recorder",))
        lost = self.flush()
        with suppress(sqlite3.Error):  # a reader may be at it: then the log file stays, and is read with the file
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()
        self._db = None
        return lost

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise ClosedError("the recording is closed", where=str(self.path))
        return self._db

    # Opening

    def _begin(self) -> None:
        db = self._open()
        self._boot = _boot()
        wall = round(self._clock.wall() * 1000)
        try:
            fresh = _made(db, self.path)
            last = db.execute("SELECT MAX(t) FROM (SELECT MAX(t) AS t FROM sample UNION ALL SELECT MAX(t) FROM event)")
            last_t = last.fetchone()[0] or 0
            offset = db.execute("SELECT offset FROM clock ORDER BY t DESC LIMIT 1").fetchone()
            # The time in which nobody recorded is as long as the wall clock says, and never runs backwards.
            self._base = 0 if fresh else max(last_t + 1000, wall - (offset[0] if offset else wall))
            self._offset = wall - self._base
            self._last_process = db.execute("SELECT MAX(id) FROM process").fetchone()[0] or 0
            self._groups: dict[str, int] = dict(db.execute("SELECT path, id FROM control_group"))
            self._put(_CLOCK, (self._base, self._offset))
            if not fresh:
                self.add_event(self._base, None, "gap", f"nobody recorded for {(self._base - last_t) / 1000:.0f} s")
            self._resumed = self._alive_before(db)
            for key, value in _machine().items():
                self.note(key, value)
        except sqlite3.Error as error:
            raise _failed(error, self.path) from error
        if (problem := self.flush()) is not None:
            raise _failed(problem, self.path)

    def _alive_before(self, db: sqlite3.Connection) -> dict[tuple[int, int], int]:
        rows = db.execute("SELECT id, pid, start, boot FROM process WHERE ended_t IS NULL").fetchall()
        resumed = {}
        for id, pid, start, boot in rows:
            now = scan.read(pid)
            if boot == self._boot and now is not None and now.start == start and now.alive:
                resumed[pid, start] = id
            else:
                last = db.execute("SELECT MAX(t) FROM sample WHERE process = ?", (id,)).fetchone()[0]
                self.end_process(id, last or self._base, None, oom=False)
        return resumed


class _transaction:  # noqa: N801 (used as a statement)
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        if self._db.in_transaction:  # it failed; a full disk has rolled back by itself
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")


def _runs(rows: Iterable[tuple[str, Sequence[Any]]]) -> Iterator[tuple[str, list[Sequence[Any]]]]:
    """Neighbours of the same statement together: one ``executemany`` each."""
    for statement, run in groupby(rows, key=itemgetter(0)):
        yield statement, [row for _, row in run]


def _opened(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    except sqlite3.Error as error:
        raise _failed(error, path) from error
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error as error:
        db.close()
        raise _failed(error, path) from error
    return db


def _made(db: sqlite3.Connection, path: Path) -> bool:
    """Make the tables in a new file and take it for this recorder; True if it was new.

    Raises when the file is something else or in use. One transaction: of two that come at once, one is refused.
    """
    with _transaction(db):
        fresh = not (tables := {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")})
        if fresh:
            for statement in (*schema.TABLES, *schema.VIEWS):
                db.execute(statement)
            db.execute(_META, ("flatwater_recording", str(schema.VERSION)))
        else:
            _check(db, path, tables)
        own = scan.read(os.getpid())
        db.execute(_META, ("recorder", f"{os.getpid()} {own.start if own else 0}"))
    return fresh


def _check(db: sqlite3.Connection, path: Path, tables: set[str]) -> None:
    version = None
    if "meta" in tables:
        version = db.execute("SELECT value FROM meta WHERE key = 'flatwater_recording'").fetchone()
    if version is None or version[0] != str(schema.VERSION):
        hint = "give the name of a new file"
        raise StoreError("this SQLite file is no recording of this version", where=str(path), hint=hint)
    writer = db.execute("SELECT value FROM meta WHERE key = 'recorder'").fetchone()
    if writer is not None and _runs_still(writer[0]):
        raise ConflictError(f"the recorder {writer[0].split()[0]} writes it", where=str(path))


def _runs_still(writer: str) -> bool:
    pid, start = (int(word) for word in writer.split())
    process = scan.read(pid)
    return process is not None and process.start == start and pid != os.getpid()


def _machine() -> dict[str, str]:
    """What the figures must be read with; procpath's keys where it has them."""
    return {
        "platform_node": os.uname().nodename,
        "page_size": str(scan.PAGE),
        "clock_ticks": str(scan.TICKS_PER_S),
        "physical_pages": str(os.sysconf("SC_PHYS_PAGES")),
        "cpu_count": str(os.cpu_count() or 1),
        "procfile_list": '["stat", "cmdline", "smaps_rollup", "fd"]',  # what procpath looks for before it draws
    }


def _boot() -> str:
    raw = scan.content("/proc/sys/kernel/random/boot_id")
    return raw.decode("ascii").strip() if raw else ""


def _failed(error: sqlite3.Error | str, path: Path) -> StoreError:
    text = str(error)
    if "full" in text:
        return StoreFullError(f"the disk is full ({text})", where=str(path))
    hint = "choose a directory that you may write" if "unable to open" in text or "readonly" in text else ""
    return StoreError(text, where=str(path), hint=hint)
