"""The small status that goes out with the live events, and the rate at which runs end."""

from __future__ import annotations

import asyncio
import time

from flatwater.engine.engine import Engine
from flatwater.server.counts import Counts
from flatwater.server.status import Sampler


class Pulse:
    """Publishes a ``status`` event each ``period_s``, as long as somebody listens."""

    def __init__(self, engine: Engine, counts: Counts, sampler: Sampler, period_s: float) -> None:
        self._engine = engine
        self._counts = counts
        self._sampler = sampler
        self._period_s = period_s
        self._last = (time.monotonic(), 0)
        self.rate_per_s = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        self._last = (time.monotonic(), self._ended())
        while True:
            await asyncio.sleep(self._period_s)
            self._measure()
            if self._engine.events.wanted:
                counts = await self._counts.get()
                self._engine.events.publish(
                    {
                        "type": "status",
                        "at": time.time(),
                        "rss_bytes": self._sampler.rss_bytes(),
                        "active": self._engine.statistics().scheduler.active,
                        "pending": counts.pending,
                        "waiting": counts.waiting,
                        "rate_per_s": self.rate_per_s,
                    }
                )

    def _measure(self) -> None:
        then, before = self._last
        self._last = now, ended = time.monotonic(), self._ended()
        if now > then:
            self.rate_per_s = round((ended - before) / (now - then), 3)

    def _ended(self) -> int:
        return sum(self._engine.statistics().ended.values())
