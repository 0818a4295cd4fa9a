"""Old samples of a recording, merged: one each 10 s, then one each 60 s, then none."""

# ruff: noqa: S608 (statements are put together from names in this file alone)
from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from flatwater.memory import recording_schema as schema

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S

_RANGE: Final = "t >= ? AND t < ? AND step < ?"


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long samples stay as they were taken, then merged to one each 10 s, then to one each 60 s, then go.

    The defaults make a month of one process about 5 MB. ``max_bytes`` bounds the file: above, the oldest tenth goes.
    """

    raw_s: float = 6 * HOUR_S
    tens_s: float = 2 * DAY_S
    keep_s: float = 400 * DAY_S
    max_bytes: int = 1024**3


def thin(db: sqlite3.Connection, retention: Retention, t: int) -> int:
    """Do what ``retention`` says at ``t``, inside the caller's transaction; how many rows went."""
    gone = _merge(db, 10, t - round(retention.raw_s * 1000))
    gone += _merge(db, 60, t - round(retention.tens_s * 1000))
    gone += _forget(db, t - round(retention.keep_s * 1000))
    if used(db) > retention.max_bytes:
        first = db.execute("SELECT MIN(first_t) FROM process").fetchone()[0]
        oldest = db.execute("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'forgotten'").fetchone()
        start = max(first or 0, oldest[0] if oldest else 0)
        gone += _forget(db, start + (t - start) // 10)
    return gone


def used(db: sqlite3.Connection) -> int:
    """Bytes of the pages in use."""
    size, pages, free = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_size", "page_count", "freelist_count")
    )
    return size * (pages - free)


def _merge(db: sqlite3.Connection, step_s: int, until: int) -> int:
    until -= until % (step_s * 1000)
    key = f"merged_{step_s}"
    known = db.execute("SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?", (key,)).fetchone()
    since = known[0] if known else 0
    if until <= since:
        return 0
    gone = 0
    for (process,) in db.execute(
        "SELECT id FROM process WHERE first_t < ? AND (ended_t IS NULL OR ended_t >= ?)", (until, since)
    ).fetchall():
        gone += _merge_samples(db, process, since, until, step_s)
        gone += _keep_last(db, "agent_sample", "process", process, "figure,", (since, until, step_s))
    for (group,) in db.execute("SELECT id FROM control_group").fetchall():
        gone += _keep_last(db, "group_sample", "control_group", group, "", (since, until, step_s))
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, str(until)))
    return gone


def _merge_samples(db: sqlite3.Connection, process: int, since: int, until: int, step_s: int) -> int:
    rows = db.execute(schema.merged(step_s), (process, since, until)).fetchall()
    if not rows:
        return 0
    deleted = db.execute(f"DELETE FROM sample WHERE process = ? AND {_RANGE}", (process, since, until, step_s)).rowcount
    db.executemany(f"INSERT OR REPLACE INTO sample VALUES ({','.join('?' * len(rows[0]))})", rows)
    return deleted - len(rows)


def _keep_last(
    db: sqlite3.Connection, table: str, owner: str, id: int, group: str, window: tuple[int, int, int]
) -> int:
    """The last row of each step stays (these figures move slowly, or only grow)."""
    step_s = window[2]
    newest = f"SELECT {group} MAX(t) FROM {table} WHERE {owner} = ? AND {_RANGE} GROUP BY {group} t / {step_s * 1000}"
    place = f"({group} t)" if group else "t"
    deleted = db.execute(
        f"DELETE FROM {table} WHERE {owner} = ? AND {_RANGE} AND {place} NOT IN ({newest})",
        (id, *window, id, *window),
    ).rowcount
    db.execute(f"UPDATE {table} SET step = {step_s} WHERE {owner} = ? AND {_RANGE}", (id, *window))
    return deleted


def _forget(db: sqlite3.Connection, until: int) -> int:
    """Drop everything before ``until``; processes that ended before it with all they had."""
    if until <= 0:
        return 0
    gone = 0
    for (process,) in db.execute("SELECT id FROM process WHERE first_t < ?", (until,)).fetchall():
        gone += db.execute("DELETE FROM sample WHERE process = ? AND t < ?", (process, until)).rowcount
        gone += db.execute("DELETE FROM agent_sample WHERE process = ? AND t < ?", (process, until)).rowcount
    for (group,) in db.execute("SELECT id FROM control_group").fetchall():
        gone += db.execute("DELETE FROM group_sample WHERE control_group = ? AND t < ?", (group, until)).rowcount
    db.execute("DELETE FROM process WHERE ended_t < ?", (until,))
    db.execute("DELETE FROM event WHERE t < ?", (until,))
    # The wall clock of what stays: the newest row before it.
    db.execute("DELETE FROM clock WHERE t < (SELECT MAX(t) FROM clock WHERE t <= ?)", (until,))
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('forgotten', ?)", (str(until),))
    return gone
