"""Dramatiq: ``flatwater.guard.dramatiq.install(broker)``. Any broker, processes and threads."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from dramatiq.message import Message
from dramatiq.middleware import Middleware, SkipMessage
from dramatiq.results import Results

from flatwater.guard.channel import Killed
from flatwater.guard.departure import Siblings
from flatwater.guard.django import close_old_connections
from flatwater.guard.policy import Level, Limits
from flatwater.guard.sample import Sample
from flatwater.guard.worker import MemoryKilled, Quarantined, Worker

log = logging.getLogger("flatwater.guard")


def install(
    broker: Any,
    *,
    soft: Level = None,
    hard: Level = None,
    grace_s: float = 600.0,
    collect: bool = True,
    max_names: int = 64,
) -> Worker:
    """Guard the processes that work for a broker; call it once, after its other middleware.

    Limits are bytes, or text as in "600MiB"; None: no limit.
    At ``soft`` all processes of the command take no more messages, end those under way and leave, since Dramatiq
    replaces none alone: under ``flatwater guard`` the supervisor starts them again, without one the command restarts
    itself in place (Dramatiq's own SIGHUP). At ``hard``, and not before two seconds there, the process is killed; the
    broker delivers its messages again. A quarantined message is rejected to the dead letters, not retried. Raises
    SettingError for limits that make no sense.
    """
    guard = GuardMiddleware(broker, Limits.given(soft, hard, grace_s), collect, max_names)
    broker.add_middleware(guard)
    return guard.worker


class GuardMiddleware(Middleware):
    """Innermost, so that it measures the actor alone."""

    def __init__(self, broker: Any, limits: Limits, collect: bool, max_names: int) -> None:
        self._broker, self._siblings = broker, Siblings()
        self._stopped_by: int | None = None  # the first signal
        self.worker = Worker(
            f"dramatiq:{type(broker).__name__}",
            limits=limits,
            on_recycle=self._recycle,
            on_killed=self._killed,
            stopping=lambda: self._stopped_by is not None,
            collect=collect,
            max_names=max_names,
        )
        self._sample = Sample(self.worker, "the message of")

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        if multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                theirs = signal.getsignal(number)
                if callable(theirs):
                    signal.signal(number, partial(self._heard, theirs))
        self.worker.ready()

    def before_consumer_thread_shutdown(self, broker: Any, thread: Any) -> None:
        """Give back what Redis has handed out and no thread has seen: Dramatiq leaves it for its heartbeat timeout."""
        fetched = getattr(thread.consumer, "message_cache", None)
        if fetched:
            thread.consumer.requeue([Message.decode(data) for data in fetched if data is not None])
            fetched.clear()

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        self.worker.close()

    def _heard(self, theirs: Callable[[int, Any], object], number: int, frame: Any) -> None:
        """Dramatiq takes a second signal for impatience. It is none when somebody stops what we have just recycled."""
        recycled, self._stopped_by = self._stopped_by == signal.SIGHUP, number
        if not recycled:
            theirs(number, frame)

    def before_process_message(self, broker: Any, message: Any) -> None:
        close_old_connections()
        self._sample.begun()
        try:
            self.worker.begin(message.actor_name, message.message_id)
        except Quarantined as error:
            message.fail()
            raise SkipMessage(str(error)) from None

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        close_old_connections()
        self._sample.ended_but_held(message, message.actor_name)
        self.worker.end(failed=exception is not None)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        close_old_connections()
        self.worker.end()

    def _recycle(self, reason: str) -> None:
        if self.worker.ask_supervisor(reason):
            return
        master = multiprocessing.parent_process()
        if master is None or master.pid is None:  # a worker inside another program, which its owner ends
            log.warning("%s should be restarted: %s", self.worker.name, reason)
        elif self._siblings.take():  # a second signal would kill what is under way
            os.kill(master.pid, signal.SIGHUP)

    def _killed(self, note: Killed) -> None:
        """The result, where results are kept; when the message is delivered again, its new result replaces it."""
        for results in self._broker.middleware:
            if isinstance(results, Results) and note.name in self._broker.actors:
                message = self._broker.get_actor(note.name).message().copy(message_id=note.id)
                results.backend.store_exception(message, MemoryKilled(str(note)), results.result_ttl)
