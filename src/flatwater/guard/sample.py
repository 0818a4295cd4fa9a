"""Which of a worker's requests, jobs and messages are expected dead after their task: at most ten a second."""

from __future__ import annotations

import threading
import weakref
from time import monotonic
from typing import Any

from flatwater.guard.worker import Worker

_EVERY_S = 0.1  # each costs microseconds, and a look at those that live on a collection
_AFTER_S = 5.0


class Sample:
    """``what`` says what is watched: "the request of"."""

    def __init__(self, worker: Worker, what: str) -> None:
        self._worker, self._what = worker, what
        self._next = -float("inf")
        self._last = threading.local()

    def ended(self, item: object, name: str) -> None:
        """The task of ``item`` has ended: perhaps expect it dead soon."""
        now = monotonic()
        if now >= self._next:
            self._next = now + _EVERY_S
            self._worker.expectation.expect_dead(item, f"{self._what} {name}", after_s=_AFTER_S)

    def ended_but_held(self, item: object, name: str) -> None:
        """As ``ended``, where the thread's own loop holds the item until its next one begins."""
        self._last.item = weakref.ref(item), name

    def begun(self) -> None:
        """The next task of this thread: its loop has let go of the one before."""
        last: tuple[weakref.ref[Any], str] | None = self._last.__dict__.pop("item", None)
        if last is not None and (item := last[0]()) is not None:
            self.ended(item, last[1])
