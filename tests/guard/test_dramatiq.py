"""Dramatiq's real command on Redis: all its processes recycled while messages are under way, each worked off once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.guard.consumer import Inferior, consuming
from tests.guard.guarding import GUARD

from flatwater.guard.record import Record
from flatwater.guard.report import summary
from flatwater.guard.report_text import text

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
    assert found.recycled == found.ends.get("recycled", 0) >= 1, shown  # its processes are not counted once more
    assert found.given_back > found.recycled * 25 << 20, shown
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


def test_a_stop_that_is_under_way_is_not_hurried_and_does_not_become_a_restart(redis_url: str, tmp_path: Path) -> None:
    worker = Dramatiq(tmp_path, redis_url, soft=100)
    worker.call("tasks.grow_late.send()")
    with consuming(worker):
        assert worker.stop_in_the_midst("Stopping worker process") == 0
    assert worker.rows() == [["begun"], ["ended"]]


def test_a_stop_while_the_command_restarts_itself_is_not_impatience(redis_url: str, tmp_path: Path) -> None:
    worker = Dramatiq(tmp_path, redis_url, soft=100)
    worker.call("tasks.grow_late.send()")
    with consuming(worker):
        worker.wait(lambda: worker.rows() == [["begun"]])
        worker.call("tasks.grow.send(0, 100 << 10, 0)")
        worker.wait(lambda: "SIGHUP" in worker.log.read_text())
        assert worker.stop_in_the_midst("'SIGTERM' to subprocesses", rows=2) == 0
    assert worker.rows()[2:] == [["ended"]]


def test_messages_that_were_fetched_and_not_begun_are_given_back(redis_url: str, tmp_path: Path) -> None:
    """The stop comes when the first of eight is handed on."""
    worker = Dramatiq(tmp_path, redis_url)
    told = worker.call(
        "from dramatiq.worker import ConsumerThread\n"
        "for n in range(8): tasks.nothing.send(n)\n"
        "theirs = ConsumerThread.handle_message\n"
        "def last(self, message): theirs(self, message); self.stop()\n"
        "ConsumerThread.handle_message = last\n"
        "hands = dramatiq.Worker(broker, worker_threads=4); hands.start()\n"
        "hands.consumers['default'].join(); hands.work_queue.join(); hands.stop()\n"
        "print(guard.statistics().ended, broker.client.llen('dramatiq:default'))"
    )
    assert told == "1 7\n"


def test_a_message_that_is_kept_is_named(redis_url: str, tmp_path: Path) -> None:
    worker = Dramatiq(tmp_path, redis_url)
    told = worker.call(
        "import time\n"
        "hands = dramatiq.Worker(broker, worker_threads=1); hands.start()\n"
        "for actor in (tasks.keep, tasks.nothing, tasks.nothing): actor.send(*(1,) * (actor is tasks.nothing))\n"
        "while guard.statistics().ended < 3: time.sleep(0.01)\n"
        "guard.expectation._clock = lambda: time.monotonic() + 10\n"
        "for found in guard.expectation.check(): print(found.name, found.path)\n"
        "hands.stop()"
    )
    (line,) = told.splitlines()
    assert line.startswith("the message of keep")
    assert "KEPT" in line


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
