"""What a record's events add up to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flatwater.guard.record import Record
from flatwater.guard.report import summary, text

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


def test_the_newest_ends_are_listed(record: Record) -> None:
    for pid in range(30):
        end(record, pid, "crash")
    assert [one.pid for one in summary(record).ended] == list(range(10, 30))


def test_an_empty_record_says_what_to_do(record: Record) -> None:
    assert "give the worker an integration" in text(record)
