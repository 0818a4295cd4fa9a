"""Dramatiq: ``flatwater.guard.dramatiq.install(broker)``. Any broker, processes and threads."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from typing import Any

from dramatiq.middleware import Middleware, SkipMessage
from dramatiq.results import Results

from flatwater.guard.channel import Killed
from flatwater.guard.departure import Siblings
from flatwater.guard.django import close_old_connections
from flatwater.guard.policy import Limits
from flatwater.guard.worker import MemoryKilled, Quarantined, Worker

log = logging.getLogger("flatwater.guard")


def install(
    broker: Any,
    *,
    soft: int | None = None,
    hard: int | None = None,
    grace_s: float = 600.0,
    collect: bool = True,
    max_names: int = 64,
) -> Worker:
    """Guard the processes that work for a broker; call it once, after its other middleware. Bytes; None: no limit.

    At ``soft`` all processes of the command take no more messages, end those under way and leave, since Dramatiq
    replaces none alone: under ``flatwater guard`` the supervisor starts them again, without one the command restarts
    itself in place (Dramatiq's own SIGHUP). At ``hard``, and not before two seconds there, the process is killed; the
    broker delivers its messages again. A quarantined message is rejected to the dead letters, not retried. Raises
    SettingError for limits that make no sense.
    """
    guard = GuardMiddleware(broker, Limits(soft=soft, hard=hard, grace_s=grace_s), collect, max_names)
    broker.add_middleware(guard)
    return guard.worker


class GuardMiddleware(Middleware):
    """Innermost, so that it measures the actor alone."""

    def __init__(self, broker: Any, limits: Limits, collect: bool, max_names: int) -> None:
        self._broker, self._siblings = broker, Siblings()
        self.worker = Worker(
            f"dramatiq:{type(broker).__name__}",
            limits=limits,
            on_recycle=self._recycle,
            on_killed=self._killed,
            collect=collect,
            max_names=max_names,
        )

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        self.worker.start()

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        self.worker.close()

    def before_process_message(self, broker: Any, message: Any) -> None:
        close_old_connections()
        try:
            self.worker.begin(message.actor_name, message.message_id)
        except Quarantined as error:
            message.fail()
            raise SkipMessage(str(error)) from None

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        close_old_connections()
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
