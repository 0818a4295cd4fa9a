"""What a record's events add up to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flatwater.guard.flight import started
from flatwater.guard.record import Record
from flatwater.guard.report import summary
from flatwater.guard.report_text import text

MIB = 1 << 20


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record(tmp_path / "guard.db") as record:
        yield record


def end(record: Record, pid: int, reason: str, *, slot: int = 0, level: int = 0, base: int = 0) -> None:
    record.add("end", pid, slot=slot, reason=reason, detail=f"because of {reason}", life_s=9.5, level=level, base=base)


def test_ends_with_what_they_gave_back_and_how_long_their_place_was_empty(record: Record) -> None:
    record.add("start", 1, slot=0, away_s=0.0)
    end(record, 1, "recycled", level=90 * MIB, base=30 * MIB)
    record.add("start", 2, slot=0, away_s=0.25)
    record.add("start", 3, slot=1, away_s=0.0)
    end(record, 3, "crash", slot=1)
    found = summary(record)
    assert [(one.pid, one.reason, one.freed, one.away_s) for one in found.ended] == [
        (1, "recycled", 60 * MIB, 0.25),
        (3, "crash", 0, None),
    ], "nobody has come to the second place yet"
    assert (found.away_s, found.given_back, found.recycled) == (0.25, 60 * MIB, 1)


def test_a_place_is_not_empty_where_the_replacement_came_first(record: Record) -> None:
    record.add("start", 1, slot=0, away_s=0.0)
    record.add("start", 2, slot=0, away_s=0.0)
    end(record, 1, "recycled")
    end(record, 2, "killed")
    record.add("start", 3, slot=0, away_s=1.0)
    assert [(one.pid, one.away_s) for one in summary(record).ended] == [(1, 0.0), (2, 1.0)]


def test_processes_of_pools_are_listed_and_workers_that_were_told_to_stop_are_not(record: Record) -> None:
    record.add("start", 1, slot=0, away_s=0.0)
    record.add("leaving", 11, reason="soft limit", level=90 * MIB, base=50 * MIB)
    record.add("leaving", 1, reason="soft limit", level=1, base=1)  # its end follows
    end(record, 1, "recycled")
    record.add("start", 2, slot=0, away_s=0.5)
    end(record, 2, "stopped")
    rows = [(one.pid, one.reason, one.detail, one.freed, one.life_s) for one in summary(record).ended]
    assert rows == [
        (11, "recycled", "soft limit", 40 * MIB, None),
        (1, "recycled", "because of recycled", 0, 9.5),
    ]


def leaving(record: Record, pid: int, level: int, base: int = 0) -> None:
    record.add("leaving", pid, reason="soft limit", level=level * MIB, base=base * MIB)


def test_processes_that_had_the_whole_worker_recycled_are_counted_with_it_alone(record: Record) -> None:
    record.add("start", 1, slot=0, away_s=0.0)
    for pid in (11, 12):  # as Dramatiq's, which replaces none alone
        leaving(record, pid, 90, 30)
        record.add("wanted", pid, reason="soft limit")
    record.add("asked", 1, level=200 * MIB, base=80 * MIB)
    end(record, 1, "recycled", level=20 * MIB, base=80 * MIB)  # the last level of one whose processes ended before
    found = summary(record)
    assert (found.recycled, found.given_back) == (1, 120 * MIB)
    assert [one.pid for one in found.ended] == [1]


def test_processes_that_left_alone_and_whole_workers_are_added(record: Record) -> None:
    record.add("start", 1, slot=0, away_s=0.0)
    for level in (70, 80):  # the number came again
        leaving(record, 11, level, 50)
    record.add("asked", 1, level=150 * MIB, base=100 * MIB)
    end(record, 1, "recycled")
    found = summary(record)
    assert (found.recycled, found.given_back) == (3, 100 * MIB)


def test_workers_of_a_guard_that_was_killed_fill_no_place(record: Record) -> None:
    record.add("guard", 5)
    record.add("start", 1, slot=0, away_s=0.0)
    record.add("guard", 6)
    record.add("start", 2, slot=0, away_s=0.0)
    end(record, 2, "crash")
    assert [one.away_s for one in summary(record).ended] == [None]


def told(record: Record, level: int, pid: int = 7, **state: object) -> None:
    record.table(pid, "0", "huey", [], **{"level": level * MIB, "base": 100 * MIB, "size": 0, **state})


@pytest.mark.parametrize(
    ("level", "holders", "words"),
    [
        (99, "", "pid 7, huey: back at its start (100 MiB)"),
        (104, "", "pid 7, huey: back within 4 % of its start (100 MiB)"),
        (118, "", "18 % above its start (100 MiB → 118 MiB)\n      which allocator holds it has not been measured"),
        (118, "malloc, free (a trim may return it) 41 MiB", "→ 118 MiB)\n      malloc, free (a trim may return it) 41"),
    ],
)
def test_how_far_a_process_is_back_at_its_start(record: Record, level: int, holders: str, words: str) -> None:
    told(record, 500)
    told(record, level, holders=holders)
    assert words in text(record)


def test_what_trims_gave_back(record: Record) -> None:
    told(record, 104, pid=7, trims=1, trimmed=30 * MIB, trim_s=0.25)
    told(record, 104, pid=8, trims=11, trimmed=10 * MIB, trim_s=0.5)
    found = summary(record)
    assert (found.trims, found.trimmed, found.trim_s) == (12, 40 * MIB, 0.75)
    assert "Trimmed: 12 times, which gave 40 MiB back in 0.8 s" in text(record)
    assert "pid 7, huey: back within 4 % of its start (100 MiB); trimmed 1 time, 30 MiB given back" in text(record)


def test_processes_that_live_come_first(record: Record) -> None:
    record.table(os.getpid(), started(os.getpid()), "huey", [], level=104 * MIB, base=100 * MIB)
    for pid in range(30):
        told(record, 104, pid=-pid)
    found = summary(record).processes
    assert [one.pid for one in found[:3]] == [os.getpid(), -29, -28]
    assert [one.lives for one in found] == [True, *[False] * 19]
    assert f"pid {os.getpid()}, huey" in text(record)
    assert "pid -29" not in text(record)


def test_the_release_of_a_quarantined_task_can_be_pasted(record: Record) -> None:
    record.kill("GET /x; rm", 1)
    assert f"flatwater guard --record {record.name} release 'GET /x; rm'" in text(record)


def test_ends_that_were_not_well_are_told_with_their_reason(record: Record) -> None:
    record.add("unstartable", 0, slot=0, error="no such file")
    record.add("start", 1, slot=0, away_s=0.0)
    end(record, 1, "crash")
    record.add("interrupted", 1, name="shop.copy", id="77")
    record.add("start", 2, slot=0, away_s=0.0)
    end(record, 2, "recycled")
    told = text(record)
    assert "Not started: 1 time, the last time: no such file" in told
    assert "pid 1, 9.5 s old: crash, because of crash" in told
    assert "because of recycled" not in told
    assert "shop.copy [77], pid 1" in told


def test_a_task_that_grows_is_looked_into_where_its_process_lives(record: Record) -> None:
    row = {
        "name": "shop.copy", "count": 9, "failed": 0, "total_s": 1.0, "max_s": 1.0, "peak": 9, "rise": 1, "alone": 9,
        "retained": 1, "per_call": 10 * MIB, "low": 9 * MIB, "high": 11 * MIB, "share": 1.0,
    }  # fmt: skip
    record.table(7, "0", "huey", [row], level=MIB, base=MIB)
    assert "flatwater diagnose" not in text(record)
    record.table(os.getpid(), started(os.getpid()), "huey", [row], level=MIB, base=MIB)
    assert f"flatwater diagnose {os.getpid()}" in text(record)


def test_the_newest_ends_are_listed(record: Record) -> None:
    for pid in range(30):
        end(record, pid, "crash")
    assert [one.pid for one in summary(record).ended] == list(range(10, 30))


def test_an_empty_record_says_what_to_do(record: Record) -> None:
    assert "give the worker an integration" in text(record)
