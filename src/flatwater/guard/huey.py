"""Huey: ``flatwater.guard.huey.install(huey)``. Thread, process and greenlet workers, any storage."""

from __future__ import annotations

import copy
import os
import signal
import sys
import weakref
from typing import Any

from flatwater.guard.channel import VARIABLE, Killed
from flatwater.guard.django import close_old_connections, leave_inherited_connections
from flatwater.guard.policy import Level, Limits
from flatwater.guard.sample import Sample
from flatwater.guard.turn import Turn
from flatwater.guard.worker import MemoryKilled, Quarantined, Worker

_HEALTH_S = 0.2


def install(
    huey: Any,
    *,
    soft: Level = None,
    hard: Level = None,
    grace_s: float = 600.0,
    collect: bool = True,
    max_names: int = 64,
) -> Worker:
    """Guard the workers of a Huey instance; call it once, where the instance is made.

    Limits are bytes, or text as in "600MiB"; None: no limit.
    At ``soft`` the consumer stops taking work, ends the tasks in flight and leaves; under ``flatwater guard`` the
    supervisor replaces it, without one it restarts itself in place (Huey's own SIGHUP). Process workers leave one by
    one and the consumer replaces them. At ``hard``, and not before two seconds there, the process is killed and the
    tasks in flight get an error as their result. Raises SettingError for limits that make no sense.
    """
    return _Host(huey, Limits.given(soft, hard, grace_s), collect, max_names).worker


class _Host:
    def __init__(self, huey: Any, limits: Limits, collect: bool, max_names: int) -> None:
        from huey.exceptions import CancelExecution

        self._huey = huey
        self._consumer: weakref.ref[Any] | None = None
        self.worker = Worker(
            f"huey:{huey.name}",
            limits=limits,
            on_recycle=self._recycle,
            on_killed=self._killed,
            stopping=self._stopping,
            collect=collect,
            by_supervisor=True,
            max_names=max_names,
        )
        self._sample = Sample(self.worker, "the task")
        self._cancel = CancelExecution
        self._create = huey.create_consumer
        huey.create_consumer = self._create_consumer
        huey.pre_execute("flatwater.guard")(self._before)
        huey.post_execute("flatwater.guard")(self._after)
        huey.on_startup("flatwater.guard")(self._started)
        huey.on_shutdown("flatwater.guard")(self._ended)

    def _create_consumer(self, **options: Any) -> Any:
        consumer = self._create(**options)
        self._consumer = weakref.ref(consumer)
        if consumer.environment.__class__.__name__ == "ProcessEnvironment":
            # A process that has left is replaced when the consumer looks; ten seconds is too long to be missed.
            consumer._health_check_interval = min(consumer._health_check_interval, _HEALTH_S)
            self.worker.turn = Turn(lambda: consumer.workers + 1)  # and the scheduler
        return consumer

    def _started(self) -> None:
        if self.worker.forked:
            leave_inherited_connections()
        self.worker.ready()

    def _before(self, task: Any) -> None:
        if self._huey.immediate:  # the task runs in whoever calls it, whose connections are its own
            return
        if "django.db" in sys.modules:
            close_old_connections()
        try:
            self.worker.begin(task.name, task.id)
        except Quarantined as error:
            self._put_errors(task, error)
            raise self._cancel(str(error), retry=False) from None

    def _after(self, task: Any, value: object, error: BaseException | None) -> None:
        if self._huey.immediate:
            return
        if "django.db" in sys.modules:
            close_old_connections()
        self._sample.ended(task, task.name)
        self.worker.end(failed=error is not None)

    def _ended(self) -> None:
        """A worker ends: of threads and greenlets the consumer goes on, so only a process reports a last time."""
        if self.worker.forked:
            self.worker.close()

    def _stopping(self) -> bool:
        """A second signal would end the tasks in flight, or turn the stop into a restart."""
        consumer = self._consumer() if self._consumer is not None else None
        return consumer is not None and (consumer._signum is not None or consumer.stop_flag.is_set())

    def _recycle(self, reason: str) -> None:
        if self.worker.forked:
            self._leave_pool()
            return
        consumer = self._consumer() if self._consumer is not None else None
        warm = getattr(consumer, "_graceful_sig", signal.SIGINT)
        os.kill(os.getpid(), warm if os.environ.get(VARIABLE) else signal.SIGHUP)

    def _leave_pool(self) -> None:
        """Use the worker's own way out after a number of tasks: the one that runs this task has now run enough."""
        from huey.consumer import Worker as HueyWorker

        frame = sys._getframe()
        while frame is not None:
            host = frame.f_locals.get("self")
            if isinstance(host, HueyWorker):
                host.max_tasks = host.task_count
                return
            frame = frame.f_back  # type: ignore[assignment]

    def _killed(self, note: Killed) -> None:
        """What Huey does with a task that has failed for the last time; of one whose process is gone we have the id."""
        task = next((one for one in list(self._huey._tasks_in_flight) if one.id == note.id), None)
        error = MemoryKilled(str(note))
        if task is None:
            if self._keeps_result(note.name):
                self._huey.put_result(note.id, _failure(note.id, error))
            return
        self._put_errors(task, error)
        self._huey._abort_chord_member(task, _failure(note.id, error))
        if task.on_error:
            handler = copy.copy(task.on_error)
            handler.extend_data(error)
            self._huey.enqueue(handler)

    def _put_errors(self, task: Any, error: Exception) -> None:
        """Of the task and of those that were to follow it, which nobody would read of a periodic one."""
        from huey.api import PeriodicTask

        if not self._huey.results or isinstance(task, PeriodicTask):
            return
        failure = _failure(task.id, error)
        while task is not None:
            self._huey.put_result(task.id, failure)
            task = task.on_complete

    def _keeps_result(self, name: str) -> bool:
        registry = self._huey._registry
        kinds = [kind for kind in registry._registry.values() if kind.__name__ == name]
        return bool(self._huey.results) and not (kinds and all(kind in registry._periodic_tasks for kind in kinds))


def _failure(task_id: str, error: Exception) -> Any:
    from huey.utils import Error

    return Error({"error": str(error), "retries": 0, "traceback": "", "task_id": task_id})
