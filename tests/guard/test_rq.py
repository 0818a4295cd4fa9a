"""RQ's real worker on Redis: one that runs jobs itself is recycled between them, one that forks loses the job alone."""

from __future__ import annotations

import inspect
import signal
import sys
from pathlib import Path

from tests.guard.consumer import Inferior, consuming
from tests.guard.guarding import GUARD
from tests.guard.test_successor import events

from flatwater.guard import rq
from flatwater.guard.record import Record
from flatwater.guard.report import summary
from flatwater.guard.report_text import text

JOBS = 100
PROGRAM = str(Path(sys.executable).with_name("rq"))


class Alone(Inferior):
    module = "rq_inferior"
    warm = signal.SIGTERM

    def __init__(self, folder: Path, storage: str, kind: str, *more: str) -> None:
        command = [PROGRAM, "worker", "-u", storage, "-w", f"rq_inferior.{kind}", *more, "inferior"]
        super().__init__(folder, command, storage=storage)


class Rq(Inferior):
    module = "rq_inferior"
    warm = signal.SIGTERM

    def __init__(self, folder: Path, storage: str, kind: str, *more: str) -> None:
        command = [*GUARD, "--record", str(folder / "guard.db"), *more, "--", PROGRAM, "worker", "-u", storage]
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


def test_a_stop_that_is_under_way_is_not_hurried(redis_url: str, tmp_path: Path) -> None:
    """RQ would end the job at a second signal, unless that comes within a second."""
    worker = Alone(tmp_path, redis_url, "Simple")
    worker.call("queue.enqueue(tasks.grow_late)")
    with consuming(worker):
        worker.stop_in_the_midst("warm shut down requested", after_s=1.1)
    assert worker.rows() == [["begun"], ["ended"]]
    assert worker.call("print(len(queue.failed_job_registry), len(queue.finished_job_registry))") == "0 1\n"


def test_a_job_is_not_lost_to_a_stop_that_comes_when_it_has_just_been_popped(redis_url: str, tmp_path: Path) -> None:
    worker = Alone(tmp_path, redis_url, "Simple", "--queue-class", "rq_inferior.Popping")
    worker.call("for n in range(2): queue.enqueue(tasks.nothing, n)")
    with consuming(worker):
        assert worker.process is not None
        worker.process.wait(60)
    assert [row[0] for row in worker.rows()] == ["0"], "done before it left"
    assert worker.call("print(len(queue), len(queue.finished_job_registry))") == "1 1\n"


def test_an_idle_worker_stops_soon(redis_url: str, tmp_path: Path) -> None:
    worker = Alone(tmp_path, redis_url, "Simple")
    with consuming(worker):
        worker.wait(lambda: "Listening on" in worker.log.read_text())
        assert worker.process is not None
        worker.process.send_signal(worker.warm)
        assert worker.process.wait(90) == 0


def test_a_job_that_is_kept_is_named(redis_url: str, tmp_path: Path) -> None:
    worker = Alone(tmp_path, redis_url, "Simple")
    told = worker.call(
        "import time, rq\n"
        "for job in (tasks.keep, tasks.grow, tasks.grow): queue.enqueue(job, *((1,) if job is tasks.grow else ()))\n"
        "worker = tasks.Simple([queue], connection=queue.connection)\n"
        "end = worker.guard.close\n"
        "worker.guard.close = lambda: None\n"
        "worker.work(burst=True, logging_level='ERROR')\n"
        "worker.guard.expectation._clock = lambda: time.monotonic() + 10\n"
        "for found in worker.guard.expectation.check(): print(found.name, found.path)\n"
        "end()"
    )
    (line,) = told.splitlines()
    assert line.startswith("the job of rq_inferior.keep")
    assert "KEPT" in line


def test_of_two_workers_one_leaves_when_the_other_takes_jobs(redis_url: str, tmp_path: Path) -> None:
    worker = Rq(tmp_path, redis_url, "Simple", "-n", "2", "--overlap")
    worker.call(f"for n in range({2 * JOBS}): queue.enqueue(tasks.grow, n)")
    with consuming(worker):
        worker.wait(lambda: len(worker.rows()) >= 2 * JOBS)
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(2 * JOBS))
    told = events(worker.file)
    living = [2 + sum(1 if kind == "start" else -1 for kind in told[2:at]) for at in range(2, told.index("stopped"))]
    assert "recycled" in told
    assert min(living) >= 2, told


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


def test_a_job_may_come_with_its_execution_as_from_rq_3_on() -> None:
    for kind in (rq.SimpleWorker, rq.Worker):
        signature = inspect.signature(kind.perform_job)
        for given in (["job", "queue"], ["job", "queue", "execution"]):
            signature.bind("worker", *given)
