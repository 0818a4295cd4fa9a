"""One timer for all times of the gateway: a request costs no timer of its own."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Protocol, Self

logger = logging.getLogger(__name__)

TICK_S = 0.1


class Swept(Protocol):
    def sweep(self, now: float) -> None:
        """Do what is due at ``now`` (the loop's time)."""


class Sweeper:
    """Calls ``sweep`` of everything added, every ``tick_s``, while it is entered."""

    def __init__(self, *, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._swept: dict[Swept, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._next(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._swept.clear()

    def add(self, swept: Swept) -> None:
        self._swept[swept] = None

    def remove(self, swept: Swept) -> None:
        self._swept.pop(swept, None)

    def __len__(self) -> int:
        return len(self._swept)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._tick_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next(loop)
        now = loop.time()
        for swept in list(self._swept):
            try:
                swept.sweep(now)
            except Exception:
                logger.exception("sweeping %r", swept)
