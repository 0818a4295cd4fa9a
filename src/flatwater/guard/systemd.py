"""What systemd is told of a guard: ready, reloading, stopping, alive, and in a line of status why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from flatwater.bounded.notify import Notifier
from flatwater.guard.instance import Instance

_EXTEND_S, _EVERY_S = 30.0, 5.0


class Unit:
    """Tells systemd what has changed since the last look; READY comes when every place has its worker.

    The main process is the supervisor's whatever is replaced, so MAINPID never changes. The watchdog hears from it
    twice in the time that systemd allows, and only from the loop that looks after the workers. While workers end their
    work, which the guard's own grace bounds, it asks for more time than ``TimeoutStopSec`` gives.
    """

    def __init__(self, places: int, environ: Mapping[str, str]) -> None:
        self._notifier = Notifier(environ)
        self._places = places
        self._state = "starting"
        self._status = ""
        self._next_alive = self._next_extend = -float("inf")
        self.reload_asked = False

    def look(self, current: Sequence[Instance], *, stopping: bool, trouble: str) -> None:
        """``current`` are the workers in their places, ``trouble`` is why one could not be started."""
        self._alive()
        if stopping:
            self._enter("stopping", self._notifier.stopping, f"stopping {self._places} workers")
            self._extend()
            return
        if self.reload_asked:
            self.reload_asked = False
            self._state = ""
            self._enter("reloading", self._notifier.reloading, "replacing all workers")
        complete = len(current) == self._places and not any(one.wanted or one.leaving for one in current)
        if self._state in ("starting", "reloading") and complete:
            self._enter("ready", self._notifier.ready, f"{self._places} workers")
        elif trouble != self._status:
            self._status = trouble
            self._notifier.status(trouble or f"{len(current)} workers")

    def _enter(self, state: str, tell: Callable[[str], None], status: str) -> None:
        if self._state != state:
            self._state = state
            tell(status)

    def _alive(self) -> None:
        allowed_s, now = self._notifier.watchdog_s, time.monotonic()
        if allowed_s is not None and now >= self._next_alive:
            self._next_alive = now + allowed_s / 2
            self._notifier.alive()

    def _extend(self) -> None:
        now = time.monotonic()
        if now >= self._next_extend:
            self._next_extend = now + _EVERY_S
            self._notifier.extend(_EXTEND_S)
