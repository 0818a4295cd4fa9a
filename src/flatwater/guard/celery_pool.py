"""Celery's prefork pool: the successor of a grown child is up before the child gets no more work.

Celery starts a replacement when it has noticed that a child ended. That takes from one to six seconds: a child sleeps
before it ends, and the pool is woken by the closing of its pipes; when it is not yet a zombie at that moment, it is
overlooked until the next look, five seconds later. Until then the pool may even send it a task.
"""

from __future__ import annotations

import gc
import itertools
import logging
import mmap
import os
import struct
from contextlib import suppress
from typing import Any

log = logging.getLogger("flatwater.guard")

_PID = struct.Struct("i")
_STEP_S, _LOOK_S = 0.02, 0.5
_ATTENDED, _WANTED = range(2)


class Succession:
    """Made in the worker's first process before its pool forks; it attends to what children ask for.

    Needs Celery's event loop, as brokers on sockets have it; without one ``ask`` is False, and a child simply leaves.
    Uses parts of Celery 5 and billiard 4 that are not public: what fails there is logged, and children simply leave.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("i")  # with the children
        self._hub: Any = None
        self._pool: Any = None
        self._looks: Any = None

    def ask(self) -> bool:
        """In a child: ask to be replaced. False when nobody attends."""
        with suppress(OSError):
            return self._shared[_ATTENDED] == 1 and os.write(self._writer, _PID.pack(os.getpid())) > 0
        return False

    def wanted(self) -> int:
        """How many children the pool should have now: autoscaling and remote control change it. 0: not known yet."""
        return self._shared[_WANTED]

    def attend(self, hub: Any, pool: Any) -> None:
        """In the parent, each time its consumer is ready."""
        if not hasattr(pool, "_processes"):  # threads, solo
            return
        self._pool = pool
        self._shared[_WANTED] = pool._processes
        if hub is None or not hasattr(pool, "_all_inqueues"):
            pool.on_grow = pool.on_shrink = self._resized  # which do nothing in a pool without an event loop
            return
        if self._looks is not None:
            self._looks.cancel()
        self._hub = hub
        hub.add_reader(self._reader, self._asked)
        self._looks = hub.call_repeatedly(_LOOK_S, self._look)
        self._shared[_ATTENDED] = 1

    def _resized(self, _: int) -> None:
        self._shared[_WANTED] = self._pool._processes

    def _look(self) -> None:
        self._shared[_WANTED] = self._pool._processes
        self._pool.maintain_pool()  # for children that were killed and overlooked

    def _asked(self) -> None:
        for (pid,) in _PID.iter_unpack(os.read(self._reader, 64 * _PID.size)):
            old = next((child for child in self._pool._pool if child.pid == pid), None)
            if old is not None:
                try:
                    self._step(old, self._start())
                except Exception:  # one that leaves the loop would end the worker
                    self._shared[_ATTENDED] = 0
                    log.exception("pid %d gets no successor before it leaves; children will simply leave", pid)

    def _start(self) -> Any:
        """A child more than the pool is to have: when the old one has ended, none is missing.

        As Celery does it, but for its full collection before each fork, which stops the pool for tens of milliseconds:
        of the garbage that the child should not inherit, what is young is enough.
        """
        from billiard.pool import Pool
        from celery.signals import worker_before_create_process

        pool = self._pool
        if None not in pool._queues.values():
            pool._queues[pool.create_process_queues()] = None
        taken = {child.index for child in pool._pool}
        worker_before_create_process.send(sender=pool)
        gc.collect(1)
        return Pool._create_worker_process(pool, next(at for at in itertools.count() if at not in taken))

    def _step(self, old: Any, new: Any) -> None:
        """The successor is up; the old one gets no more; what it has is done; it ends."""
        pool, inbox = self._pool, old.inqW_fd
        if old not in pool._pool:
            return
        if new in pool._waiting_to_start or inbox in pool._active_writes:
            self._hub.call_later(_STEP_S, self._step, old, new)
            return
        pool._all_inqueues.discard(inbox)
        pool._busy_workers.discard(inbox)  # the pool compares how many are busy with how many there are
        self._hub.remove_writer(inbox)
        if any(job._write_to is old or job._scheduled_for is old for job in pool._cache.values()):
            self._hub.call_later(_STEP_S, self._step, old, new)
            return
        log.warning("pid %d is replaced by pid %d", old.pid, new.pid)
        old.terminate_controlled()
