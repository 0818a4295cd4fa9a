"""Celery's real worker on Redis and RabbitMQ: children recycled by what they hold; sub-tasks that a request keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.service import answers

HERE = Path(__file__).parent


class Worker:
    """A worker in a process group of its own, and its tasks to call from here."""

    def __init__(self, folder: Path, broker: str, backend: str, pool: str, size: int, **variables: object) -> None:
        self.done, self.log = folder / "done", folder / "log"
        self.queue = f"flatwater-{uuid.uuid4().hex[:8]}"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FLATWATER")},
            "INFERIOR_BROKER": broker,
            "INFERIOR_BACKEND": backend,
            "INFERIOR_QUEUE": self.queue,
            "INFERIOR_DONE": str(self.done),
            "PYTHONPATH": str(HERE),
            **{f"INFERIOR_{key.upper()}": str(value) for key, value in variables.items()},
        }
        self.command = [sys.executable, "-m", "celery", "-A", "celery_inferior", "worker", "-P", pool, "-c", str(size)]
        self.command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=HERE.parents[1], stdout=output, stderr=output
            )

    def call(self, program: str) -> str:
        lines = f"import celery_inferior as tasks\nfrom celery_inferior import app\n{program}"
        done = subprocess.run(
            [sys.executable, "-c", lines], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self) -> list[list[str]]:
        return [line.split() for line in self.done.read_text().splitlines()] if self.done.exists() else []

    def wait(self, what: Callable[[], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def working(worker: Worker) -> Iterator[Worker]:
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
        if worker.environment["INFERIOR_BROKER"].startswith("amqp"):
            worker.call("app.connection().default_channel.queue_delete(app.conf.task_default_queue)")


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    if not answers(5672):
        pytest.skip("no RabbitMQ answers on 127.0.0.1:5672")
    return "amqp://guest:guest@127.0.0.1:5672//"


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_prefork_children_are_recycled_and_each_task_ends_once(broker: str, redis_url: str, tmp_path: Path) -> None:
    tasks = 260  # Celery replaces a child some five seconds after it left: the others have work until then
    worker = Worker(tmp_path, broker, redis_url, "prefork", 2, soft=60)
    worker.call(f"for number in range({tasks}): tasks.grow.delay(number, 1024, 0.05)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= tasks)
    rows = worker.rows()
    assert sorted(int(row[0]) for row in rows) == list(range(tasks))
    assert len({row[1] for row in rows}) >= 3, worker.log.read_text()[-3000:]
    assert "WorkerLostError" not in worker.log.read_text()


def test_a_child_of_a_grown_parent_and_a_spike_that_was_freed_do_not_recycle(redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, "prefork", 1, soft=60, born=150)
    worker.call("for number in range(30): tasks.spike.delay(number, 120)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= 30)
    assert len({row[1] for row in worker.rows()}) == 1, worker.log.read_text()[-3000:]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_threads_and_solo_end_warm_and_lose_nothing(pool: str, redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, pool, 2, soft=100)
    worker.call("for number in range(90): tasks.grow.delay(number, 1024, 0.005)")
    lives = 0
    while len(worker.rows()) < 90:
        worker.start()
        lives += 1
        process = worker.process
        assert process is not None
        worker.wait(lambda process=process: process.poll() is not None or len(worker.rows()) >= 90)  # type: ignore[misc]
        if len(worker.rows()) < 90:
            assert process.wait(30) == 0
    worker.stop()
    assert lives >= 2
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(90))


def test_a_parent_that_keeps_its_sub_tasks_is_named_while_it_runs(redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, "solo", 1, expect=1)
    with working(worker):
        worker.call("tasks.parent.delay(2000)")
        worker.wait(lambda: "trail=False" in worker.log.read_text())
    told = next(line for line in worker.log.read_text().splitlines() if "trail=False" in line)
    assert "celery_inferior.parent" in told
    assert "Context._children[0] (AsyncResult" in told, told
