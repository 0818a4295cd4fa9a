"""kill -9 at random moments while more than 200 flows of every sort run.

KILLS=100 pytest tests/live/test_kill.py      (the default is six)
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.figure import FIGURES

KILLS = int(os.environ.get("KILLS", "6"))
RUNS_PER_KILL = 200
SEED = int(os.environ.get("SEED", "20261121"))


def start(folder: Path, incarnation: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.live.plant", str(folder), str(incarnation), str(count)]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", (folder / "log").read_text()[-3000:]
    return process


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / "plant.db")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.timeout(60 + 30 * KILLS)
def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    chance = random.Random(SEED)
    total = RUNS_PER_KILL * KILLS + 200
    done_before: list[set[tuple[str, str]]] = []
    for incarnation in range(KILLS):
        process = start(tmp_path, incarnation, total)
        time.sleep(chance.uniform(0.05, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        succeeded = rows(tmp_path, "SELECT run_id, path FROM step WHERE state = 'SUCCEEDED' AND type = 'Mark'")
        done_before.append({(str(run), str(path)) for run, path in succeeded})
        assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    last = start(tmp_path, KILLS, total)
    last.communicate(timeout=120)
    assert last.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    check_runs(tmp_path, total)
    check_blocks(tmp_path, done_before)
    check_rest(tmp_path)
    busy = max(map(int, lines(tmp_path, "busy")))
    assert busy >= 200, "not enough ran at once to prove anything"
    pytestconfig.stash.setdefault(FIGURES, []).append(
        f"{KILLS} kills: {total} runs, up to {busy} open, {len(lines(tmp_path, 'marks'))} blocks marked"
    )


def check_runs(folder: Path, total: int) -> None:
    """Every accepted run is there once, ended once, and gave what it gives without a kill."""
    accepted = dict(line.split() for line in lines(folder, "accepted"))
    assert len(accepted) == total
    found = rows(folder, "SELECT out_order_no, id, state, outputs, error FROM run WHERE parent_id IS NULL")
    assert len(found) == total
    by_key = {str(key): (run_id, state, outputs, error) for key, run_id, state, outputs, error in found}
    for number, run_id in accepted.items():
        stored_id, state, outputs, error = by_key[f"key-{number}"]
        assert (stored_id, state) == (run_id, "SUCCEEDED"), error
        assert json.loads(str(outputs)) == {"y": int(number)}
    children = rows(folder, "SELECT parent_id, count(*) FROM run WHERE parent_id IS NOT NULL GROUP BY parent_id")
    assert {count for _, count in children} == {1}
    assert not rows(folder, "SELECT id FROM run WHERE state NOT IN ('SUCCEEDED')")


def check_blocks(folder: Path, done_before: list[set[tuple[str, str]]]) -> None:
    """No block that was on record as succeeded ran again; no order was sent twice."""
    assert not lines(folder, "violations")
    for line in lines(folder, "marks"):
        incarnation, run_id, path = line.split()
        for killed in range(int(incarnation)):
            assert (run_id, path) not in done_before[killed], f"{run_id} {path} ran again after kill {killed}"
    sent = Counter(str(order) for (order,) in rows(folder, "SELECT order_id FROM step WHERE type IN ('Ship', 'Post')"))
    assert max(sent.values()) == 1
    assert set(sent) <= {path.name for path in (folder / "orders").iterdir()}


def check_rest(folder: Path) -> None:
    """Nothing is held by what has ended."""
    assert not rows(folder, "SELECT id FROM site WHERE locked_run IS NOT NULL")
    assert not rows(folder, "SELECT run_id, path FROM waiter")
    assert not rows(folder, "SELECT id FROM run WHERE worker IS NOT NULL OR queue IS NOT NULL")
    assert not rows(folder, "SELECT id FROM worker")
