"""RQ: a worker class, ``rq worker --worker-class flatwater.guard.rq.SimpleWorker``, or one of your own with limits."""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

import rq
from rq.job import Job, JobStatus

from flatwater.guard.channel import Killed
from flatwater.guard.django import close_old_connections, leave_inherited_connections
from flatwater.guard.policy import Limits
from flatwater.guard.worker import Quarantined
from flatwater.guard.worker import Worker as Guard


class _Guarded:
    """The limits are attributes of the class, since RQ makes the worker; bytes and seconds, None: no limit.

    A killed job has the reason in its ``meta["killed"]``. A quarantined one fails and is not retried.
    """

    soft: ClassVar[int | None] = None
    hard: ClassVar[int | None] = None
    grace_s: ClassVar[float] = 600.0
    collect: ClassVar[bool] = True
    max_names: ClassVar[int] = 64

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.guard = Guard(
            "rq",
            limits=self._limits(),
            on_recycle=self._recycle,
            on_killed=self._killed,
            collect=self.collect,
            max_names=self.max_names,
        )

    def work(self, *arguments: Any, **named: Any) -> bool:
        self.guard.start()
        try:
            return bool(super().work(*arguments, **named))  # type: ignore[misc]
        finally:
            self.guard.close()

    def perform_job(self, job: Any, queue: Any) -> bool:
        close_old_connections()
        try:
            self.guard.begin(job.func_name, job.id)
        except Quarantined as error:
            _refuse(job, error)
        try:
            return bool(super().perform_job(job, queue))  # type: ignore[misc]
        finally:
            close_old_connections()
            self.guard.end(failed=job._status == JobStatus.FAILED)

    def _limits(self) -> Limits:
        return Limits(soft=self.soft, hard=self.hard, grace_s=self.grace_s)

    def _recycle(self, reason: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def _killed(self, note: Killed) -> None:
        job = Job.fetch(note.id, connection=self.connection)  # type: ignore[attr-defined]
        job.meta["killed"] = str(note)
        job.save_meta()  # type: ignore[no-untyped-call]


class SimpleWorker(_Guarded, rq.SimpleWorker):
    """Runs jobs in its own process. At ``soft`` it ends the job under way and leaves: run it under a supervisor."""


class Worker(_Guarded, rq.Worker):
    """Forks a process for each job, so it needs no recycling: ``soft`` is not used, ``hard`` kills the job's process.

    The report has calls, durations and peaks; what a job keeps ends with it.
    """

    def perform_job(self, job: Any, queue: Any) -> bool:
        leave_inherited_connections()
        try:
            return super().perform_job(job, queue)
        finally:
            self.guard.close()  # the process ends without its exit handlers

    def _limits(self) -> Limits:
        return Limits(hard=self.hard, grace_s=self.grace_s)


def _refuse(job: Any, error: Quarantined) -> None:
    def perform() -> None:
        raise error

    job.perform = perform
    job.retries_left = 0
