"""How a process that serves leaves: the first signal drains, the second hurries, the third ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from flatwater.bounded import TaskGroup

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Departure:
    """Hears SIGTERM and SIGINT. ``drain_s``: how long work under way may take after the first one."""

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._asked = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def hurried(self) -> bool:
        return self._hurry.is_set()

    @contextlib.contextmanager
    def signals(self, more: Mapping[signal.Signals, Callable[[], object]] | None = None) -> Iterator[None]:
        """Take the signals over for the time of a ``with``, and those of ``more`` with their handlers."""
        loop = asyncio.get_running_loop()
        handlers = dict(more or {})
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._hear, number.name)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in (*_SIGNALS, *handlers):
                loop.remove_signal_handler(number)

    async def asked(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    async def drain(self, work: Coroutine[Any, Any, object], tasks: TaskGroup) -> None:
        """Run ``work`` to its end or to a second signal, which cancels it; ``tasks`` has room for two."""
        drain = tasks.start(work, name="work under way")
        hurry = tasks.start(self._hurry.wait(), name="hurry")
        try:
            await asyncio.wait([drain, hurry], return_when=asyncio.FIRST_COMPLETED)
        finally:
            drain.cancel()
            hurry.cancel()

    def _hear(self, name: str) -> None:
        if self._hurry.is_set():
            log.warning("%s once more: leaving at once", name)
            os._exit(1)
        if self._asked.is_set():
            log.warning("%s again: ending what is under way", name)
            self._hurry.set()
        else:
            log.info("%s: draining for up to %g s; a second signal cuts that short", name, self._drain_s)
            self._asked.set()
