"""What a forked child holds alone: its USS, without the pages that it shares with its parent."""

from __future__ import annotations

from time import monotonic

from flatwater.guard.gauge import Gauge


class Private:
    """USS in bytes, measured seldom, since it takes 1 ms per 100 MB: at most half a percent of the time, or what half
    of the room below ``near`` takes; above that, 5 %. ``last`` is what was measured last.

    Each thread has one of its own: what the watching thread saw in the middle of a task says nothing of its end.
    """

    def __init__(self, gauge: Gauge, near: float) -> None:
        self._gauge, self._near = gauge, near
        self._soonest = self._latest = self._risen = -float("inf")
        self.last = gauge.private()

    def measure(self, rss: int) -> bool:
        """Measure again; False when that was done a moment ago and RSS has not risen much since."""
        now = monotonic()
        if now < self._soonest or (now < self._latest and rss < self._risen):
            return False
        self.last = level = self._gauge.private()
        self._risen = rss + max(self._near - level, 0) / 2
        took = monotonic() - now
        self._soonest, self._latest = now + 20 * took, now + (200 if level < self._near else 20) * took
        return True
