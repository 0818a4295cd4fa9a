"""RQ's real worker on Redis: one that runs jobs itself is recycled between them, one that forks loses the job alone."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.guard.consumer import Inferior, consuming
from tests.guard.guarding import GUARD

from flatwater.guard.record import Record
from flatwater.guard.report import summary, text

JOBS = 100


class Rq(Inferior):
    module = "rq_inferior"
    warm = signal.SIGTERM

    def __init__(self, folder: Path, storage: str, kind: str, *more: str) -> None:
        program = str(Path(sys.executable).with_name("rq"))
        command = [*GUARD, "--record", str(folder / "guard.db"), *more, "--", program, "worker", "-u", storage]
        super().__init__(folder, [*command, "-w", f"rq_inferior.{kind}", "inferior"], storage=storage)
        self.file = folder / "guard.db"


def test_a_worker_that_runs_jobs_itself_is_recycled_between_them(redis_url: str, tmp_path: Path) -> None:
    worker = Rq(tmp_path, redis_url, "Simple")
    kinds = "queue.enqueue(tasks.grow if n * 7919 % 1000 < 600 else tasks.nothing, n)"
    worker.call(f"for n in range({JOBS}): {kinds}")
    with consuming(worker):
        worker.wait(lambda: len(worker.rows()) >= JOBS)
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(JOBS))
    assert len({row[1] for row in worker.rows()}) >= 2
    assert worker.call("print(len(queue.failed_job_registry), len(queue.started_job_registry))") == "0 0\n"
    with Record(worker.file) as record:
        found, shown = summary(record), text(record)
    assert found.ends["recycled"] >= 1, shown
    assert set(found.ends) <= {"recycled", "stopped"}, shown
    assert found.tasks[0].name == "rq_inferior.grow", shown
    assert sum(task.count for task in found.tasks) == JOBS


def test_a_job_that_was_killed_says_why_and_then_it_is_refused(redis_url: str, tmp_path: Path) -> None:
    worker = Rq(tmp_path, redis_url, "Forking", "--quarantine", "1")
    eat = (
        "import time; from rq import Retry\n"
        "job = queue.enqueue(tasks.eat, {}, retry={})\n"
        "while not job.is_failed: time.sleep(0.05); job.refresh()\n"
        "print(job.meta.get('killed'), job.latest_result().exc_string)"
    )
    with consuming(worker):
        worker.call("for n in range(5): queue.enqueue(tasks.nothing, n)")
        assert "hard limit" in worker.call(eat.format(200, None))
        worker.wait(lambda: "is quarantined" in worker.log.read_text())
        assert "release rq_inferior.eat" in worker.call(eat.format(0, "Retry(max=3)"))
        assert worker.process is not None
        assert worker.process.poll() is None
    with Record(worker.file) as record:
        found = summary(record)
    assert [row["name"] for row in found.killed] == ["rq_inferior.eat"]
    assert set(found.ends) == {"stopped"}, "the worker itself has lived on"
    assert {task.name: task.count for task in found.tasks}["rq_inferior.nothing"] == 5
