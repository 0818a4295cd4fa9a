"""Celery's real worker on Redis and RabbitMQ: children recycled by what they hold; sub-tasks that a request keeps."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

    def __init__(
        self, folder: Path, broker: str, backend: str, pool: str, size: int | str, *words: str, **variables: object
    ) -> None:
        self.queue = f"flatwater-{uuid.uuid4().hex[:8]}"
        command = [sys.executable, "-m", "celery", "-A", "celery_inferior", "worker", "-P", pool, "-c", str(size)]
        command += ["-n", self.queue]  # RabbitMQ allows a name once
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING", *words]
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
    tasks = 90
    worker = Worker(tmp_path, broker, redis_url, "prefork", 2, soft=60)
    worker.call(f"for number in range({tasks}): tasks.grow.delay(number, 2048, 0.05)")
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
    worker.call("for number in range(90): tasks.grow.delay(number, 1024)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= 90)
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(90))
    assert len({row[1] for row in worker.rows()}) == 2
    assert "is replaced by" not in worker.log.read_text()


def test_a_child_of_a_grown_parent_and_a_spike_that_was_freed_do_not_recycle(redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, "prefork", 1, soft=60, born=100)
    worker.call("for number in range(20): tasks.spike.delay(number, 100)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= 20)
    assert len({row[1] for row in worker.rows()}) == 1, worker.log.read_text()[-3000:]


@pytest.mark.parametrize(("size", "words"), [("auto", ()), (8, ("--autoscale=2,1",))])
def test_a_pool_of_another_size_than_at_its_start_is_recycled(
    size: int | str, words: tuple[str, ...], redis_url: str, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, "prefork", size, *words, soft=60)
    worker.call("for number in range(100): tasks.grow.delay(number, 2048)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= 100 and "is replaced by" in worker.log.read_text())
    assert sorted(int(row[0]) for row in worker.rows()) == list(range(100))
    assert "raised unexpected" not in worker.log.read_text()


def test_children_that_a_thread_has_forked_are_counted() -> None:
    """As a pool without an event loop does: else the first one to leave was the last."""
    lines = (
        "import os, threading, time; from flatwater.guard.turn import alive\n"
        "def fork():\n"
        "    if os.fork() == 0: time.sleep(99)\n"
        "    done.wait()\n"
        "done = threading.Event(); threading.Thread(target=fork).start()\n"
        "if os.fork() == 0: time.sleep(99)\n"
        "while alive(os.getpid()) < 2: time.sleep(0.01)\n"
        "print(alive(os.getpid()), flush=True); os.killpg(0, 9)"
    )
    words = [sys.executable, "-c", lines]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False, start_new_session=True)
    assert done.stdout == "2\n"


def test_celerys_own_limit_holds_beside_the_guard(redis_url: str, tmp_path: Path) -> None:
    worker = Worker(tmp_path, redis_url, redis_url, "prefork", 1, own=150)
    worker.call("tasks.spike.delay(0, 150); tasks.spike.delay(1, 1)")
    with working(worker):
        worker.wait(lambda: len(worker.rows()) >= 2)
    assert len({row[1] for row in worker.rows()}) == 2, "by the peak, as Celery does it"


ASK = (
    "import time; from pathlib import Path\n"
    "asked = tasks.{task}.apply_async((200,), link_error=tasks.told.s())\n"
    "try: print('first:', asked.get(timeout=60))\n"
    "except Exception as error: print('first:', type(error).__name__, error)\n"
    "done = Path(os.environ['INFERIOR_DONE'])\n"
    "while not ({until}): time.sleep(0.1); asked._cache = None\n"
    "print('then:', {then})"
)
TOLD = "done.exists() and 'told' in done.read_text()"


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_killed_task_has_its_reason_as_its_result_and_is_delivered_again_where_it_is_told_to_be(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    """Four workers at once, since each takes its seconds: until the kill, and until the pool misses its child."""
    cases: dict[str, tuple[str, str, str, dict[str, object]]] = {
        "late": ("prefork", redis_url, ASK.format(task="eat_once", until=TOLD, then="asked.result"), {"late": 1}),
        "rejected": (
            "prefork",
            redis_url,
            ASK.format(task="eat_once", until="asked.successful()", then="asked.result"),
            {"late": 1, "reject": 1},
        ),
        "threads": ("threads", redis_url, ASK.format(task="eat", until=TOLD, then="asked.result"), {}),
        "rpc": ("prefork", "rpc://", ASK.format(task="eat", until=TOLD, then="None"), {}),
    }
    workers: dict[str, Worker] = {}

    def run(name: str) -> str:
        pool, backend, program, more = cases[name]
        folder = tmp_path / name
        folder.mkdir()
        workers[name] = worker = Worker(folder, broker, backend, pool, 1, hard=150, lost_wait=1, **more)
        with working(worker):
            return worker.call(program)

    with ThreadPoolExecutor(len(cases)) as executor:
        told = dict(zip(cases, executor.map(run, cases), strict=True))
    for name in cases:
        first = told[name].split("then:")[0]
        assert "eat" in first, (name, first, workers[name].log.read_text()[-3000:])
        assert "hard limit; peak" in first, (name, first)
    assert "hard limit; peak" in told["late"].split("then:")[1], "still so when the pool has missed its child"
    assert [row[0] for row in workers["late"].rows()] == ["eaten", "told"], "acknowledged; told by the pool alone"
    assert workers["late"].rows()[1][2] == "MemoryKilledChild"
    assert "then: again" in told["rejected"]
    assert "hard limit; peak" in told["threads"].split("then:")[1]
    assert [row[0] for row in workers["threads"].rows()] == ["told"]


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
            assert process.wait(90) == 0
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
