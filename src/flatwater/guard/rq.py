"""RQ: a worker class, ``rq worker --worker-class flatwater.guard.rq.SimpleWorker``, or one of your own with limits."""

from __future__ import annotations

import multiprocessing
from time import monotonic
from typing import Any, ClassVar

import redis.exceptions
import rq
from rq.exceptions import StopRequested
from rq.job import Job, JobStatus
from rq.worker import WorkerStatus

from flatwater.guard.channel import Killed
from flatwater.guard.django import close_old_connections, leave_inherited_connections
from flatwater.guard.policy import Level, Limits
from flatwater.guard.sample import Sample
from flatwater.guard.worker import Quarantined
from flatwater.guard.worker import Worker as Guard


class _Guarded:
    """The limits are attributes of the class, since RQ makes the worker: bytes or "600MiB", seconds; None: no limit.

    A killed job has the reason in its ``meta["killed"]``. A quarantined one fails and is not retried.
    """

    soft: ClassVar[Level] = None
    hard: ClassVar[Level] = None
    grace_s: ClassVar[float] = 600.0
    collect: ClassVar[bool] = True
    max_names: ClassVar[int] = 64

    _stop_requested: bool  # RQ's own
    _shutdown_requested_date: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.guard = Guard(
            "rq",
            limits=self._limits(),
            on_recycle=self._recycle,
            on_killed=self._killed,
            stopping=lambda: self._stop_requested or self._shutdown_requested_date is not None,
            collect=self.collect,
            by_supervisor=multiprocessing.parent_process() is None,  # a worker of a pool is replaced by the pool
            max_names=self.max_names,
        )
        self._sample = Sample(self.guard, "the job of")

    def work(self, *arguments: Any, **named: Any) -> bool:
        self.guard.start()
        try:
            return bool(super().work(*arguments, **named))  # type: ignore[misc]
        finally:
            self.guard.close()

    def bootstrap(self, *arguments: Any, **named: Any) -> None:
        super().bootstrap(*arguments, **named)  # type: ignore[misc]
        self.guard.ready()

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """RQ waits for minutes, and a signal cuts that short, with it perhaps a job that was popped and is not begun.

        We wait in pieces of a second, and a stop waits for the end of one.
        """
        if timeout is None:  # a burst does not wait
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)  # type: ignore[misc]
        idle_since = monotonic()
        while not self._stop_requested:
            found = super().dequeue_job_and_maintain_ttl(timeout, 1)  # type: ignore[misc]
            if found is not None or (max_idle_time is not None and monotonic() >= idle_since + max_idle_time):
                return found
        raise StopRequested

    def heartbeat(self, *arguments: Any, **named: Any) -> None:
        try:
            super().heartbeat(*arguments, **named)  # type: ignore[misc]
        except redis.exceptions.ConnectionError:
            if self._stop_requested and self.get_state() == WorkerStatus.IDLE:  # type: ignore[attr-defined]
                raise StopRequested from None  # there is no job to wait for
            raise

    def _shutdown(self) -> None:
        if self.get_state() != WorkerStatus.IDLE:  # type: ignore[attr-defined]
            super()._shutdown()  # type: ignore[misc]
        else:
            self._stop_requested = True

    def perform_job(self, job: Any, queue: Any, *more: Any) -> bool:
        """``more`` is the execution, which RQ passes from 3.0 on."""
        close_old_connections()
        self._sample.begun()
        try:
            self.guard.begin(job.func_name, job.id)
        except Quarantined as error:
            _refuse(job, error)
        try:
            return bool(super().perform_job(job, queue, *more))  # type: ignore[misc]
        finally:
            close_old_connections()
            self._sample.ended_but_held(job, job.func_name)
            self.guard.end(failed=job._status == JobStatus.FAILED)

    def _limits(self) -> Limits:
        return Limits.given(self.soft, self.hard, self.grace_s)

    def _recycle(self, reason: str) -> None:
        """Without a signal: the next one is then the first, which RQ takes for a warm stop."""
        self._stop_requested = True

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

    def perform_job(self, job: Any, queue: Any, *more: Any) -> bool:
        leave_inherited_connections()
        try:
            return super().perform_job(job, queue, *more)
        finally:
            self.guard.close()  # the process ends without its exit handlers

    def _limits(self) -> Limits:
        return Limits.given(None, self.hard, self.grace_s)


def _refuse(job: Any, error: Quarantined) -> None:
    def perform() -> None:
        raise error

    job.perform = perform
    job.retries_left = 0
