"""Celery: ``flatwater.guard.celery.install(app)``. Prefork, threads and solo pools, any broker."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any

from celery.backends.rpc import RPCBackend
from celery.exceptions import Ignore, Reject, Retry
from celery.states import FAILURE

from flatwater.guard.celery_loss import Losses
from flatwater.guard.celery_pool import Succession
from flatwater.guard.channel import VARIABLE, Killed
from flatwater.guard.django import close_old_connections, leave_inherited_connections
from flatwater.guard.policy import Level, Limits
from flatwater.guard.sample import Sample
from flatwater.guard.turn import Turn
from flatwater.guard.worker import MemoryKilled, Worker

log = logging.getLogger("flatwater.guard")

_MANY_CHILDREN = 1000
_PATIENCE_S = 60.0  # a child that asked for a successor leaves by itself when it has not been told to for so long


def install(
    app: Any,
    *,
    soft: Level = None,
    hard: Level = None,
    grace_s: float = 600.0,
    collect: bool = True,
    max_names: int = 64,
) -> Worker:
    """Guard the workers of a Celery app; call it once, where the app is made.

    Limits are bytes, or text as in "600MiB"; None: no limit.
    At ``soft`` a prefork child is replaced: its successor is started first, then it gets no more tasks and ends. It is
    judged by its USS now, not by the peak, and not before it has grown beyond what it was born with. With threads or
    solo the whole worker makes its warm shutdown, so run it under ``flatwater guard`` or another supervisor. Each
    task's request is expected dead soon after its task. Raises SettingError for limits that make no sense.
    """
    return _Host(app, Limits.given(soft, hard, grace_s), collect, max_names).worker


class _Host:
    def __init__(self, app: Any, limits: Limits, collect: bool, max_names: int) -> None:
        from celery import signals

        self._app = app
        self._soft = limits.soft
        self._succession: Succession | None = None
        self._losses: Losses | None = None
        self._leave_at = -float("inf")
        self._pool_limit = 0  # KiB
        self._pool_measure: Callable[[], int] = lambda: 1  # what the pool compares with it
        self._requests: dict[int, Any] = {}  # in flight, by thread
        self.worker = Worker(
            f"celery:{app.main}",
            limits=limits,
            on_recycle=self._recycle,
            on_killed=self._killed,
            on_tick=self._children,
            collect=collect,
            by_supervisor=True,
            max_names=max_names,
        )
        self._sample = Sample(self.worker, "the request of")
        for name, handler in (
            ("worker_init", self._worker_init),
            ("worker_ready", self._worker_ready),
            ("worker_process_init", self._process_init),
            ("worker_process_shutdown", self._process_shutdown),
            ("worker_shutdown", self._process_shutdown),
        ):
            getattr(signals, name).connect(handler, weak=False, dispatch_uid=f"flatwater.guard {id(app)} {name}")

    def _worker_init(self, sender: Any = None, **_: Any) -> None:
        """In the worker's first process, its tasks imported and its pool not yet forked."""
        if sender.app is not self._app:
            return
        self._succession = Succession()
        self._losses = Losses()
        self.worker.turn = Turn(self._succession.wanted)
        self._have_pool_ask(sender)
        for task in self._app.tasks.values():
            task.run = self._around(task, task.run)
        if os.environ.get(VARIABLE):
            self.worker.start()  # for the results of killed tasks, which an idle worker writes, too

    def _have_pool_ask(self, controller: Any) -> None:
        """The pool asks for a child's level after each task when it has a limit: the user's, which then holds, too."""
        if controller.max_memory_per_child:
            self._pool_measure = lambda: self.worker.highest // 1024 or 1
        elif self._soft is not None:
            controller.max_memory_per_child = self._soft // 1024
        self._pool_limit = controller.max_memory_per_child or 0

    def _worker_ready(self, sender: Any = None, **_: Any) -> None:
        if sender.app is not self._app or self._succession is None:
            return
        pool = getattr(sender.pool, "_pool", None)
        self._succession.attend(getattr(sender, "hub", None), pool)
        if self._losses is not None:
            self._losses.attend(pool)
        if os.environ.get(VARIABLE):
            self.worker.ready()

    def _around(self, task: Any, run: Callable[..., Any]) -> Callable[..., Any]:
        """A task's own function in the guard's hands: a quarter of what two signals cost, and it can refuse."""
        stack, name, requests = task.request_stack, task.name, self._requests
        worker, sample, modules = self.worker, self._sample, sys.modules

        @functools.wraps(run)
        def guarded(*arguments: Any, **named: Any) -> Any:
            thread, request = get_ident(), stack.top
            if request is None or request.is_eager or thread in requests:  # called by a task, or by no worker
                return run(*arguments, **named)
            if "django.db" in modules:
                close_old_connections()
            worker.begin(name, request.id)
            requests[thread] = request
            failed = True
            try:
                result = run(*arguments, **named)
                failed = False
                return result
            except (Ignore, Reject, Retry):
                failed = False
                raise
            finally:
                del requests[thread]
                if "django.db" in modules:
                    close_old_connections()
                sample.ended(request, name)
                worker.end(failed=failed)

        return guarded

    def _process_init(self, **_: Any) -> None:
        """In a pool's child: what the pool measures after each task becomes our decision."""
        if not self.worker.forked:  # solo says that it is a pool process, too
            return
        leave_inherited_connections()
        self._requests.clear()
        self.worker.start()
        if self._pool_limit:
            from billiard import pool

            pool.mem_rss = self._pool_level

    def _pool_level(self) -> int:
        """KiB, above the pool's limit only when this child is to leave by itself."""
        if not self.worker.leaving or time.monotonic() < self._leave_at:
            return self._pool_measure()
        return max(self.worker.statistics().level // 1024, self._pool_limit + 1)

    def _process_shutdown(self, **_: Any) -> None:
        self.worker.close()

    def _children(self) -> None:
        """A running task whose request gathers the results of its sub-tasks: who holds them is worth telling now."""
        for request in list(self._requests.values()):
            children = request._children
            if children is not None and len(children) >= _MANY_CHILDREN and not getattr(request, "_flatwater", False):
                request._flatwater = True
                name = f"a sub-task's result of {request.task} [{request.id}]"
                self.worker.expectation.expect_dead(children[0], name, after_s=1.0)

    def _recycle(self, reason: str) -> None:
        if self.worker.forked:
            asked = self._succession is not None and self._succession.ask()
            self._leave_at = time.monotonic() + _PATIENCE_S if asked else -float("inf")
            return  # the pool asks for the level after the task
        if os.environ.get("REMAP_SIGTERM"):
            from celery.worker import state

            state.should_stop = 0
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def _killed(self, note: Killed) -> None:
        """A killed task's result, at once. The rest (chord, chain, errbacks) follows when the pool misses its child, or
        when the message is delivered again; where neither will be, here.
        """
        if self._losses is not None:
            self._losses.tell(note)
        task = self._app.tasks.get(note.name)
        request = next((one for one in list(self._requests.values()) if one.id == note.id), None)
        told = request if request is not None else task
        if told is not None and told.ignore_result and not (task is not None and task.store_errors_even_if_ignored):
            return
        backend, error = self._app.backend, MemoryKilled(str(note))
        if request is not None and not self.worker.forked and not (task is not None and task.acks_late):
            backend.mark_as_failure(note.id, error, request=request)
        elif request is not None or not isinstance(backend, RPCBackend):
            backend.store_result(note.id, error, FAILURE, request=request)
        else:
            log.info("%s: with rpc:// only the process that has its message can write a result", note.id)
