"""Celery's real worker on Redis and RabbitMQ: children recycled by what they hold; sub-tasks that a request keeps."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.guard.consumer import Inferior
from tests.service import answers

from flatwater.guard.turn import alive


class Worker(Inferior):
    """Celery's, with a queue of its own."""

    module = "celery_inferior"
    warm = signal.SIGTERM

    def __init__(self, folder: Path, broker: str, backend: str, pool: str, size: int, **variables: object) -> None:
        self.queue = f"flatwater-{uuid.uuid4().hex[:8]}"
        command = [sys.executable, "-m", "celery", "-A", "celery_inferior", "worker", "-P", pool, "-c", str(size)]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        super().__init__(folder, command, broker=broker, backend=backend, queue=self.queue, **variables)


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
    tasks = 180
    worker = Worker(tmp_path, broker, redis_url, "prefork", 2, soft=60)
    worker.call(f"for number in range({tasks}): tasks.grow.delay(number, 1024, 0.05)")
    living: list[int] = []

    def ended() -> bool:
        assert worker.process is not None
        now = alive(worker.process.pid)
        if living or now == 2:
            living.append(now)
        return len(worker.rows()) >= tasks

    with working(worker):
        worker.wait(ended)
    rows, log = worker.rows(), worker.log.read_text()
    assert sorted(int(row[0]) for row in rows) == list(range(tasks))
    assert len({row[1] for row in rows}) >= 3, log[-3000:]
    assert "WorkerLostError" not in log
    assert min(living) >= 1, "never fewer than configured, less one"
    assert log.count("is replaced by") >= log.count("above the soft limit") - 1, "none left before its successor was up"


def test_a_child_leaves_by_itself_when_nobody_attends(redis_url: str, tmp_path: Path) -> None:
    """Should Celery's inside change: a child that asks in vain goes the pool's own way."""
    worker = Worker(tmp_path, redis_url, redis_url, "prefork", 1, soft=60, alone=1)
    worker.call("for number in range(60): tasks.grow.delay(number, 1024)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= 60)
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(60))
    assert len({row[1] for row in worker.rows()}) == 2
    assert "is replaced by" not in worker.log.read_text()


def test_a_child_of_a_grown_parent_and_a_spike_that_was_freed_do_not_recycle(redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, "prefork", 1, soft=60, born=100)
    worker.call("for number in range(20): tasks.spike.delay(number, 100)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= 20)
    assert len({row[1] for row in worker.rows()}) == 1, worker.log.read_text()[-3000:]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_threads_and_solo_end_warm_and_lose_nothing(pool: str, redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, pool, 2, soft=100)
    worker.call("for number in range(60): tasks.grow.delay(number, 1024, 0.005)")
    lives = 0
    while len(worker.rows()) < 60:
        worker.start()
        lives += 1
        process = worker.process
        assert process is not None
        worker.wait(lambda process=process: process.poll() is not None or len(worker.rows()) >= 60)  # type: ignore[misc]
        if len(worker.rows()) < 60:
            assert process.wait(30) == 0
    worker.stop()
    assert lives >= 2
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(60))


def test_a_parent_that_keeps_its_sub_tasks_is_named_while_it_runs(redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, "solo", 1, expect=1)
    with working(worker):
        worker.call("tasks.parent.delay(2000)")
        worker.wait(lambda: "trail=False" in worker.log.read_text())
    told = next(line for line in worker.log.read_text().splitlines() if "trail=False" in line)
    assert "celery_inferior.parent" in told
    assert "Context._children[0] (AsyncResult" in told, told
