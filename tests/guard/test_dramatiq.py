"""Dramatiq's real command on Redis: all its processes recycled while messages are under way, each worked off once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.guard.consumer import Inferior, consuming
from tests.guard.guarding import GUARD

from flatwater.guard.record import Record
from flatwater.guard.report import summary, text

TASKS = 260  # more than is worked off in the second that a process of Dramatiq takes to hear its signal
MIXED = f"for n in range({TASKS}): tasks.grow.send(n, 1536, 0.05) if n * 7919 % 1000 < 600 else tasks.nothing.send(n)"


class Dramatiq(Inferior):
    module = "dramatiq_inferior"
    warm = signal.SIGTERM

    def __init__(self, folder: Path, storage: str, *words: str, **variables: object) -> None:
        command = [*words, str(Path(sys.executable).with_name("dramatiq")), "dramatiq_inferior", "-p", "2", "-t", "2"]
        super().__init__(folder, command, storage=storage, **variables)


def test_recycled_under_the_guard_no_message_is_lost_and_the_growing_actor_is_named(
    redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "guard.db"
    worker = Dramatiq(tmp_path, redis_url, *GUARD, "--record", str(file), "--", soft=70)
    worker.call(MIXED)
    with consuming(worker):
        worker.wait(lambda: len(worker.rows()) >= TASKS)
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(TASKS))
    assert len({row[1] for row in worker.rows()}) >= 3, "two processes, and those that came after them"
    with Record(file) as record:
        found, shown = summary(record), text(record)
    assert found.ends.get("recycled", 0) >= 1, shown
    assert set(found.ends) <= {"recycled", "stopped"}, shown
    assert found.tasks[0].name == "grow", shown
    assert found.tasks[0].per_call is not None
    assert sum(task.count for task in found.tasks) == TASKS


def test_alone_the_command_restarts_itself(redis_url: str, tmp_path: Path) -> None:
    worker = Dramatiq(tmp_path, redis_url, soft=70)
    worker.call(MIXED)
    with consuming(worker):
        worker.wait(lambda: len(worker.rows()) >= TASKS)
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(TASKS))
    assert len({row[1] for row in worker.rows()}) >= 3


def test_a_killed_message_has_the_reason_as_its_result_and_is_rejected_from_then_on(
    redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "guard.db"
    words = [*GUARD, "--record", str(file), "--quarantine", "1", "--"]
    worker = Dramatiq(tmp_path, redis_url, *words, hard=150)
    ask = (
        "from dramatiq.results import ResultError\n"
        "try: print(tasks.eat.send({}).get_result(block=True, timeout=60000))\n"
        "except ResultError as error: print(error)"
    )
    with consuming(worker):
        told = worker.call(ask.format(200))
        assert "eat" in told
        assert "hard limit" in told
        worker.wait(lambda: "is quarantined" in worker.log.read_text())
        worker.wait(lambda: "Quarantined" in worker.call(ask.format(0)) or "release eat" in worker.call(ask.format(0)))
    with Record(file) as record:
        assert [row["name"] for row in summary(record).killed] == ["eat"]
