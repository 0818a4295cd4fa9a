"""A record keeps what is newest, and says what is wrong with a file that is none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flatwater.errors import NotFoundError
from flatwater.guard.record import Record, RecordError


def row(name: str) -> dict[str, Any]:
    return {"name": name, "count": 1}


def test_without_any_event_the_newest_rows_and_processes_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "guard.db"
    with Record(file, max_rows=200) as record:
        for pid in range(1000):  # as the processes of RQ's jobs
            record.table(pid, "0", "rq", [row("shop.copy")], level=pid)
            with closing(sqlite3.connect(file)) as data:
                assert data.execute("SELECT count(*) FROM task").fetchone()[0] <= 200
                assert data.execute("SELECT count(*) FROM process").fetchone()[0] <= 40
        kept = [found["pid"] for found in record.tasks()]
        assert kept == list(range(1000 - len(kept), 1000))
        assert len(kept) >= 180
        assert [one.level for one in record.processes()][-1] == 999


def test_a_row_that_is_written_again_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says."""
    now = iter(range(10_000, 0, -1))
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    with Record(tmp_path / "guard.db", max_rows=50) as record:
        for pid in range(100):
            record.table(1, "0", "huey", [row("old")])
            record.table(pid, "1", "rq", [row("new")])
        assert [one["pid"] for one in record.tasks()[-2:]] == [1, 99]
        assert [one.pid for one in record.processes()[-2:]] == [1, 99]


def test_what_a_larger_record_held_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "guard.db"
    with Record(file) as record:
        record.table(1, "0", "huey", [row(str(number)) for number in range(300)])
    with Record(file, max_rows=100) as record:
        assert [one["name"] for one in record.tasks()] == [str(number) for number in range(200, 300)]


@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_record_is_left_as_it_is(tmp_path: Path, create: bool) -> None:
    text, other = tmp_path / "text", tmp_path / "other.db"
    text.write_text("no database" * 100)
    with closing(sqlite3.connect(other)) as data:
        data.execute("CREATE TABLE task (id)")
    for file, words in ((text, "file is not a database"), (other, "no guard has written this file")):
        with pytest.raises(RecordError, match=words) as error:
            Record(file, create=create)
        assert str(file) in str(error.value)
    with closing(sqlite3.connect(other)) as data:
        assert data.execute("SELECT name FROM sqlite_master").fetchall() == [("task",)]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="unable to open"):
        Record(tmp_path / "missing" / "guard.db")
    with pytest.raises(NotFoundError, match="there is no record"):
        Record(tmp_path / "guard.db", create=False)


def test_a_record_of_a_former_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "guard.db"
    with closing(sqlite3.connect(file)) as data:
        data.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, at REAL, kind TEXT, pid INTEGER, body TEXT)")
        data.execute("CREATE TABLE task (pid, start, name, worker, at, body, PRIMARY KEY (pid, start, name))")
        data.execute("CREATE TABLE kill (name TEXT PRIMARY KEY, kills INTEGER, since REAL)")
        data.execute("INSERT INTO task VALUES (1, '0', 'a', 'huey', 1.0, '{}')")
        data.commit()
    with Record(file, create=False) as record:
        assert [one["pid"] for one in record.tasks()] == [1]
        assert record.processes() == []
