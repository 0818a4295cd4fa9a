"""Huey's real consumer: recycled while tasks run, none lost, none twice; the hog; the hard limit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.guard.consumer import Consumer, consuming

TASKS = 160


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "huey.db") if request.param == "sqlite" else str(request.getfixturevalue("redis_url"))


@pytest.mark.parametrize(
    ("storage", "kind"),
    [("redis", "thread"), ("sqlite", "thread"), ("sqlite", "process"), ("redis", "process"), ("redis", "greenlet")],
    indirect=["storage"],
)
def test_recycled_while_tasks_run_each_task_ends_once(storage: str, kind: str, tmp_path: Path) -> None:
    soft = 60 if kind == "process" else 80  # a child is judged by what is its own
    consumer = Consumer(tmp_path, storage, kind, 2, soft=soft)
    consumer.call(f"for number in range({TASKS}): tasks.grow(number, 1024, 0.01)")
    with consuming(consumer):
        consumer.wait(lambda: len(consumer.rows()) >= TASKS)
    rows = consumer.rows()
    assert sorted(int(row[0]) for row in rows) == list(range(TASKS))
    levels = [int(row[-1]) for row in rows]
    assert max(levels) < 80 + (120 if kind == "process" else 40), (
        "processes leave one by one, the others go on meanwhile"
    )
    leaving = consumer.log.read_text().count("above the soft limit")
    # of two processes one may take most of the tasks and be the only one that leaves
    assert leaving >= (1 if kind == "process" else 2), consumer.log.read_text()[-2000:]
    if kind == "process":
        assert len({row[1] for row in rows}) >= 3, "the one that left was replaced"
    assert "WorkerRecycle" not in consumer.log.read_text()


@pytest.mark.parametrize("storage", ["redis"], indirect=True)
def test_the_hog_is_back_after_its_task_or_the_holder_is_named(storage: str, tmp_path: Path) -> None:
    consumer = Consumer(tmp_path, storage, "thread", 1)
    with consuming(consumer):
        told = consumer.call(
            "wait = lambda task: task.get(blocking=True, timeout=90)\n"
            "tasks.nothing(0); before, _ = wait(tasks.level())\n"
            "wait(tasks.hog(250))\n"
            "after, arenas = wait(tasks.level())\nprint(before, after, arenas)"
        )
    before, after, arenas = map(int, told.split())
    assert after <= before * 1.1 or arenas > (after - before) * 0.8, told
    assert after < 130 << 20, told


@pytest.mark.parametrize("storage", ["redis"], indirect=True)
def test_a_stop_that_is_under_way_does_not_become_a_restart(storage: str, tmp_path: Path) -> None:
    consumer = Consumer(tmp_path, storage, "thread", 1, soft=100)
    consumer.call("tasks.grow_late()")
    with consuming(consumer):
        assert consumer.stop_in_the_midst("Shutting down gracefully") == 0
    assert consumer.rows() == [["begun"], ["ended"]]


@pytest.mark.parametrize("storage", ["redis"], indirect=True)
def test_what_waits_for_a_killed_task_hears_of_it(storage: str, tmp_path: Path) -> None:
    """The rest of its pipeline gets its error, its chord goes on, and its error handler is called."""
    consumer = Consumer(tmp_path, storage, "thread", 1, hard=150)
    consumer.call(
        "from huey import chord\n"
        "member = tasks.eat.s(200).then(tasks.nothing.s()).error(tasks.gather.s())\n"
        "results = huey.enqueue(chord([member], tasks.gather.s()))\n"
        "open(tasks.DONE + '.id', 'w').write(results.results._results[0].id)"
    )
    with consuming(consumer):
        assert consumer.process is not None
        assert consumer.process.wait(60) == -signal.SIGKILL
    told = consumer.call("print(huey.get(open(tasks.DONE + '.id').read(), peek=True).metadata['error'])")
    assert "eat" in told
    assert "limit 150 MiB" in told
    with consuming(consumer):
        consumer.wait(lambda: len(consumer.rows()) == 2)
    assert consumer.rows() == [["gathered", "1"]] * 2


@pytest.mark.parametrize("results", [True, False])
def test_of_what_nobody_reads_no_errors_are_kept(results: bool, tmp_path: Path) -> None:
    """Refused tasks, and tasks whose end the guard tells of: those of a Huey without results, and periodic ones."""
    (tmp_path / "quarantine.json").write_text('["nothing", "periodic"]')
    more = {} if results else {"no_results": 1}
    consumer = Consumer(tmp_path, str(tmp_path / "huey.db"), "thread", 1, **more)
    consumer.environment["FLATWATER_GUARD"] = str(tmp_path / "socket")
    told = consumer.call(
        "import msgspec, time; from pathlib import Path; from flatwater.guard.channel import Killed\n"
        "for task in (tasks.nothing.s(1).then(tasks.nothing.s()), tasks.periodic.s()): huey.execute(task)\n"
        "print(huey.storage.result_store_size())\n"
        "notes = [Killed(kind='huey:inferior', name=name, id=name, reason='test') for name in ('eat', 'periodic')]\n"
        "paths = [Path(tasks.DONE).with_name(f'killed-{at}.json') for at in (1, 2)]\n"
        "for path, note in zip(paths, notes): path.with_suffix('.draft').write_bytes(msgspec.json.encode(note))\n"
        "for path in paths: path.with_suffix('.draft').rename(path)\n"
        "while any(Path(tasks.DONE).parent.glob('[kw]*-*')): time.sleep(0.05)\n"
        "guard.close(); print(huey.storage.result_store_size())"
    )
    assert told.split() == (["2", "3"] if results else ["0", "0"])


def test_a_task_that_is_kept_is_named(tmp_path: Path) -> None:
    consumer = Consumer(tmp_path, str(tmp_path / "huey.db"), "thread", 1)
    told = consumer.call(
        "import time\n"
        "for task in (tasks.nothing.s(1), tasks.keep.s()): huey.execute(task); time.sleep(0.11)\n"
        "del task; guard.expectation._clock = lambda: time.monotonic() + 10\n"
        "for found in guard.expectation.check(): print(found.name, found.path)"
    )
    (line,) = told.splitlines()
    assert line.startswith("the task keep")
    assert "KEPT" in line


@pytest.mark.parametrize("storage", ["redis"], indirect=True)
def test_a_task_killed_for_memory_has_that_in_its_result(storage: str, tmp_path: Path) -> None:
    consumer = Consumer(tmp_path, storage, "thread", 1, soft=100, hard=150)
    with consuming(consumer):
        told = consumer.call(
            "try: tasks.eat(200).get(blocking=True, timeout=90)\n"
            "except Exception as error: print(error.metadata['error'])"
        )
        assert consumer.process is not None
        assert consumer.process.wait(90) == -signal.SIGKILL
    assert "killed for memory" in told
    assert "eat" in told
    assert "limit 150 MiB" in told
    assert "builtins.bytearray" in told or "malloc" in told, told


def test_module_is_light() -> None:
    """Nothing of the supervisor, of Celery or of the server comes into a worker."""
    program = "import sys, flatwater.guard.huey as it; print([name for name in sys.modules if name in sys.argv[1:]])"
    names = ["celery", "django", "flatwater.server", "flatwater.guard.supervisor", "sqlalchemy", "asyncio"]
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True)
    loaded: ModuleType | str = done.stdout.strip()
    assert "celery" not in loaded
    assert "supervisor" not in loaded
