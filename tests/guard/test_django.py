"""Django's connections in workers: none is left over, a broken one is replaced, a fork does not share its parent's."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from tests.guard.consumer import Consumer, Inferior, consuming

TASKS = 30
FAILED = "Unhandled exception in task"


class Base:
    """A fresh database, as Django's settings and as an onlooker see it."""

    def __init__(self, url: str) -> None:
        self._url = sqlalchemy.make_url(url)
        self._postgres = url.startswith("postgres")
        elsewhere = self._url.set(database="postgres" if self._postgres else "mysql")  # so as not to be counted itself
        self._engine = sqlalchemy.create_engine(elsewhere, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")

    def settings(self, **more: Any) -> str:
        engine = "postgresql" if self._postgres else "mysql"
        place = {"HOST": self._url.host, "PORT": self._url.port, "USER": self._url.username, "NAME": self._url.database}
        return json.dumps({"ENGINE": f"django.db.backends.{engine}", **place, **more})

    def connections(self) -> list[int]:
        """The server's numbers of the connections to this database."""
        found = "SELECT id FROM information_schema.processlist WHERE db = :name"
        if self._postgres:
            found = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = :name"
        with self._engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text(found), {"name": self._url.database})
            return [row[0] for row in rows]

    def end_all(self) -> None:
        end = "SELECT pg_terminate_backend({})" if self._postgres else "KILL {}"
        numbers = self.connections()
        with self._engine.connect() as connection:
            for number in numbers:
                connection.execute(sqlalchemy.text(end.format(number)))


class DjangoConsumer(Consumer):
    module = "django_inferior"

    def __init__(self, folder: Path, storage: str, kind: str, workers: int, **variables: object) -> None:
        super().__init__(folder, storage, kind, workers, **variables)
        self.command = [word.replace("huey_inferior", self.module) for word in self.command]

    def touch(self, count: int) -> None:
        """That many tasks, and wait for their ends."""
        expected = len(self.rows()) + count
        self.call(f"for number in range({count}): huey_touch(number)")
        self.wait(lambda: len(self.rows()) >= expected)


class CeleryWorker(Inferior):
    module = "django_inferior"
    warm = signal.SIGTERM

    def __init__(self, folder: Path, storage: str, pool: str = "threads", **variables: object) -> None:
        command = [sys.executable, "-m", "celery", "-A", "django_inferior", "worker", "-P", pool, "-c", "4"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        super().__init__(folder, command, storage=storage, celery=1, **variables)


@pytest.fixture
def base(request: pytest.FixtureRequest) -> Base:
    return Base(request.getfixturevalue(f"{getattr(request, 'param', 'postgres')}_url"))


both = pytest.mark.parametrize("base", ["postgres", "mariadb"], indirect=True)


def test_no_thread_keeps_a_connection_after_its_task(base: Base, redis_url: str, tmp_path: Path) -> None:
    consumer = DjangoConsumer(tmp_path, redis_url, "thread", 4, database=base.settings())
    with consuming(consumer):
        consumer.touch(TASKS)
        consumer.wait(lambda: base.connections() == [])
        assert consumer.process is not None
        assert consumer.process.poll() is None, "it is the idle consumer that has none"


def test_a_thread_keeps_one_for_as_long_as_it_may_and_a_broken_one_is_replaced(
    base: Base, redis_url: str, tmp_path: Path
) -> None:
    options = base.settings(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    consumer = DjangoConsumer(tmp_path, redis_url, "thread", 2, database=options)
    with consuming(consumer):
        consumer.touch(TASKS)
        assert len({row[1] for row in consumer.rows()}) <= 2, "one for each thread, whatever it ran"
        base.end_all()
        consumer.wait(lambda: base.connections() == [])
        consumer.touch(TASKS)
        assert FAILED not in consumer.log.read_text(), "no task has met one that the server had ended"
        consumer.call("for _ in range(4): huey_break()")
        consumer.wait(lambda: consumer.log.read_text().count(FAILED) == 4)
        consumer.touch(TASKS)
    assert consumer.log.read_text().count(FAILED) == 4, "only those that broke their own"


@both
def test_a_forked_worker_has_a_connection_of_its_own_and_its_end_leaves_the_parents_alone(
    base: Base, redis_url: str, tmp_path: Path
) -> None:
    options = base.settings(CONN_MAX_AGE=None)
    consumer = DjangoConsumer(tmp_path, redis_url, "process", 2, database=options, parent=1)
    with consuming(consumer):
        consumer.wait(lambda: len(base.connections()) == 1)
        (parents,) = base.connections()
        consumer.touch(TASKS)
        rows = consumer.rows()
        of_children = {row[2]: row[1] for row in rows}
        assert str(parents) not in of_children.values()
        assert len(set(of_children.values())) == len(of_children)
        assert parents in base.connections()


def test_celerys_threads_keep_none_either(base: Base, redis_url: str, tmp_path: Path) -> None:
    worker = CeleryWorker(tmp_path, redis_url, database=base.settings())
    worker.start()
    try:
        worker.call(f"for number in range({TASKS}): celery_touch.delay(number)")
        worker.wait(lambda: len(worker.rows()) >= TASKS)
        worker.wait(lambda: base.connections() == [])
        worker.call("celery_break.delay(); celery_touch.delay(0)")
        worker.wait(lambda: len(worker.rows()) == TASKS + 1)
    finally:
        worker.stop()


def test_celerys_children_have_a_connection_of_their_own(base: Base, redis_url: str, tmp_path: Path) -> None:
    """Django is set up without ``DJANGO_SETTINGS_MODULE`` here, so that Celery does nothing about it."""
    worker = CeleryWorker(tmp_path, redis_url, "prefork", database=base.settings(CONN_MAX_AGE=None), parent=1)
    worker.start()
    try:
        worker.wait(lambda: len(base.connections()) == 1)
        (parents,) = base.connections()
        worker.call(f"for number in range({TASKS}): celery_touch.delay(number)")
        worker.wait(lambda: len(worker.rows()) >= TASKS)
        of_children = {row[2]: row[1] for row in worker.rows()}
        assert str(parents) not in of_children.values()
        assert len(set(of_children.values())) == len(of_children)
        assert parents in base.connections()
    finally:
        worker.stop()


def test_a_task_that_runs_in_its_caller_leaves_the_callers_connection_alone(
    base: Base, redis_url: str, tmp_path: Path
) -> None:
    """As in a request or a test: Huey's immediate mode, Celery's eager one."""
    here = DjangoConsumer(tmp_path, redis_url, "thread", 1, database=base.settings(), celery=1)
    told = here.call(
        "before = asked()\n"
        "huey.immediate = True; huey_touch(0)\n"
        "celery_touch.apply((1,))\n"
        "import threading\nprint(before == asked(), [one.name for one in threading.enumerate()])"
    )
    assert told.startswith("True ['MainThread']"), told
    assert len({row[1] for row in here.rows()}) == 1
