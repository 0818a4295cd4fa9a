"""Which task grows: alone, overlapping, among noise; the bound on names."""

from __future__ import annotations

import random
import sys
import threading

import pytest

from flatwater.guard.table import OTHERS, Row, Table

KIB = 1024


def fill(table: Table, growth: dict[str, int], *, noise: int = 0, calls: int = 2000) -> dict[str, Row]:
    """Tasks that overlap all the time, so that no single difference says anything."""
    rng, level = random.Random(7), 50_000 * KIB
    for at in range(calls):
        name = rng.choices(list(growth), [1 + (at // 40 + place) % 5 for place in range(len(growth))])[0]
        level += growth[name] + rng.randint(-noise, noise)
        table.add(
            name, now=at * 0.02, seconds=0.1, before=level - 3000, after=level, peak=level + 9, alone=False,
            failed=at % 10 == 0,
        )  # fmt: skip
    return {row.name: row for row in table.rows()}


def test_overlapping_tasks_are_told_apart() -> None:
    rows = fill(Table(), {"leaks": 40 * KIB, "flat": 0, "small": 5 * KIB}, noise=4 * KIB)
    leaks, flat, small = rows["leaks"], rows["flat"], rows["small"]
    assert leaks.low is not None
    assert leaks.high is not None
    assert leaks.low <= 40 * KIB <= leaks.high
    assert leaks.high - leaks.low < 8 * KIB
    assert leaks.grows
    assert small.grows
    assert not flat.grows
    assert leaks.share is not None
    assert leaks.share > 0.75
    assert next(iter(rows)) == "leaks"
    assert leaks.retained is None, "no call was alone"


def test_noise_is_no_growth() -> None:
    rows = fill(Table(), {"one": 0, "other": 0}, noise=64 * KIB)
    assert not any(row.grows for row in rows.values())


def test_tasks_that_always_come_together_are_not_told_apart() -> None:
    table, level = Table(), 0
    for at in range(800):  # each interval has one a, which grows, and one b, which does not
        before, level = level, level + (at % 2) * 100 * KIB
        table.add(
            "ba"[at % 2], now=at * 0.125, seconds=0, before=before, after=level, peak=level, alone=False, failed=False
        )
    assert {row.per_call for row in table.rows()} <= {None} or {row.name for row in table.rows() if row.grows} == {"a"}


def test_tasks_that_always_come_together_but_never_at_once_are_told_apart() -> None:
    rng, table, now, level = random.Random(3), Table(), 0.0, 0
    for _ in range(200):  # in every interval as many of one as of the other
        for name, seconds, growth in (("grows", 0.011, 100 * KIB), ("flat", 0.0005, 0)):
            before = level + rng.randint(-KIB, KIB)
            now += seconds
            level = before + growth
            table.add(name, now=now, seconds=seconds, before=before, after=level, peak=level, alone=True, failed=False)
    rows = {row.name: row for row in table.rows()}
    assert rows["grows"].per_call == pytest.approx(100 * KIB)
    assert rows["grows"].grows
    assert rows["flat"].per_call == pytest.approx(0)
    assert not rows["flat"].grows


def test_calls_alone_are_measured_one_by_one() -> None:
    table = Table()
    for at in range(10):
        table.add("t", now=at, seconds=1.5, before=100 * at, after=100 * at + 100, peak=5000, alone=True, failed=False)
    (row,) = table.rows()
    assert (row.count, row.alone, row.retained, row.mean_s, row.peak, row.rise) == (10, 10, 100, 1.5, 5000, 5000)
    assert row.per_call == pytest.approx(100)


def test_names_are_bounded() -> None:
    table = Table(max_names=8)
    for at in range(1000):
        table.add(f"task-{at}", now=at, seconds=0, before=0, after=0, peak=0, alone=True, failed=False)
    rows = {row.name: row for row in table.rows()}
    assert len(rows) == len(table) == 8
    assert rows[OTHERS].count == 993


def test_rows_are_read_while_other_threads_add_names() -> None:
    """In the middle of a walk, since threads take turns at any moment: here every microsecond."""
    table, ended, failures = Table(max_names=5000, interval_s=1e-9), threading.Event(), []

    def add(start: int) -> None:
        try:
            for at in range(800):
                name = f"{start}-{at}"
                table.add(name, now=at, seconds=0, before=0, after=0, peak=0, alone=False, failed=False)
        except RuntimeError as error:
            failures.append(error)

    def walk() -> None:
        try:
            while not ended.is_set():
                table.rows()
        except RuntimeError as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=add, args=(start,)) for start in range(2)]
    reader = threading.Thread(target=walk)
    try:
        for thread in (*threads, reader):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        ended.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert not failures
    assert len(table) == 1600
