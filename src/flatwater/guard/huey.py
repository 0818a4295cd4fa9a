"""Huey: ``flatwater.guard.huey.install(huey)``. Thread, process and greenlet workers, any storage."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from typing import Any

from flatwater.guard.channel import VARIABLE, Killed
from flatwater.guard.django import close_old_connections, leave_inherited_connections
from flatwater.guard.policy import Limits
from flatwater.guard.turn import Turn
from flatwater.guard.worker import MemoryKilled, Quarantined, Worker

_HEALTH_S = 0.2


def install(
    huey: Any,
    *,
    soft: int | None = None,
    hard: int | None = None,
    grace_s: float = 600.0,
    collect: bool = True,
    max_names: int = 64,
) -> Worker:
    """Guard the workers of a Huey instance; call it once, where the instance is made. Bytes; None: no limit.

    At ``soft`` the consumer stops taking work, ends the tasks in flight and leaves; under ``flatwater guard`` the
    supervisor replaces it, without one it restarts itself in place (Huey's own SIGHUP). Process workers leave one by
    one and the consumer replaces them. At ``hard``, and not before two seconds there, the process is killed and the
    tasks in flight get an error as their result. Raises SettingError for limits that make no sense.
    """
    return _Host(huey, Limits(soft=soft, hard=hard, grace_s=grace_s), collect, max_names).worker


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
            collect=collect,
            by_supervisor=True,
            max_names=max_names,
        )
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
        close_old_connections()
        try:
            self.worker.begin(task.name, task.id)
        except Quarantined as error:
            self._put_error(task.id, str(error))
            raise self._cancel(str(error), retry=False) from None

    def _after(self, task: Any, value: object, error: BaseException | None) -> None:
        if self._huey.immediate:
            return
        close_old_connections()
        self.worker.end(failed=error is not None)

    def _ended(self) -> None:
        """A worker ends: of threads and greenlets the consumer goes on, so only a process reports a last time."""
        if self.worker.forked:
            self.worker.close()

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
        self._put_error(note.id, str(MemoryKilled(str(note))))

    def _put_error(self, task_id: str, text: str) -> None:
        from huey.utils import Error

        fields = {"error": text, "retries": 0, "traceback": "", "task_id": task_id}
        self._huey.put_result(task_id, Error(fields))
