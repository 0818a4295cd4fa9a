"""Celery's prefork pool: what becomes of the task of a child that was killed. To the pool it is a lost worker."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from billiard.einfo import ExceptionInfo
from celery.exceptions import WorkerLostError

from flatwater.guard.channel import Killed
from flatwater.guard.worker import MemoryKilled

_MAX_BYTES = 4096  # what a pipe takes in one piece (PIPE_BUF)
_MAX_KNOWN = 100


class MemoryKilledChild(MemoryKilled, WorkerLostError):  # type: ignore[misc]  # Celery has no types
    """The task was killed for memory.

    A lost worker, so that Celery does with its task what its settings say for those.
    """


class Losses:
    """Made in the worker's first process before its pool forks: children tell the parent which tasks they die with.

    The parent notices seconds later that a child is gone (``worker_lost_wait``), and then writes the task's result,
    calls back its chord, its chain and its errbacks: with the reason, where it was told.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._rest = b""
        self._known: OrderedDict[str, Killed] = OrderedDict()

    def tell(self, note: Killed) -> None:
        """In any process of the worker; what does not fit is dropped, and the task's worker is simply lost."""
        line = msgspec.json.encode(note) + b"\n"
        if len(line) > _MAX_BYTES:
            line = msgspec.json.encode(msgspec.structs.replace(note, holders="")) + b"\n"
        with suppress(OSError):
            os.write(self._writer, line)

    def attend(self, pool: Any) -> None:
        """In the parent, each time its consumer is ready."""
        theirs = getattr(pool, "mark_as_worker_lost", None)
        if theirs is not None and getattr(theirs, "__func__", None) is not Losses._lost:
            self._theirs: Callable[[Any, int], object] = theirs
            pool.mark_as_worker_lost = self._lost

    def _lost(self, job: Any, status: int) -> None:
        self._read()
        note = self._known.pop(job.correlation_id, None)
        if note is None:
            self._theirs(job, status)
            return
        try:
            raise MemoryKilledChild(str(note))
        except MemoryKilledChild:
            job._set(None, (False, ExceptionInfo()))

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._reader, 1 << 16):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    note = msgspec.json.decode(line, type=Killed)
                    self._known[note.id] = note
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
