"""The end of a process that must end now: last words with little time, and a SIGKILL that nothing holds up."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable

log = logging.getLogger("flatwater.guard")

_STEP_S, _ALL_S = 2.0, 5.0


def die(words: Iterable[Callable[[], object]]) -> None:
    """Say the last words one after another, then SIGKILL to this process, whatever came of them.

    Each has 2 s, all together 5 s: a result backend that hangs does not keep a process alive that eats the memory.
    """
    until = time.monotonic() + _ALL_S
    try:
        for word in words:
            left = until - time.monotonic()
            if left <= 0:
                within(_STEP_S, lambda: log.error("there is no time for the other last words"))
                break
            if not within(min(left, _STEP_S), word):
                within(_STEP_S, lambda: log.error("a last word took too long"))
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def within(seconds: float, step: Callable[[], object]) -> bool:
    """Run a step in a thread of its own; whether it ended in time. What it raises is logged there.

    Not a ``threading.Thread``, whose start waits without a limit for one that has no memory to begin.
    """
    ended = _thread.allocate_lock()
    ended.acquire()

    def run() -> None:
        try:
            step()
        except Exception:
            log.exception("last words failed")
        finally:
            ended.release()

    _thread.start_new_thread(run, ())
    return ended.acquire(timeout=seconds)
