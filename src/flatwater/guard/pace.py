"""How often a worker is measured: at fixed times, further apart the longer a measure takes. Decisions only."""

from __future__ import annotations

import time
from collections.abc import Callable

from flatwater.bounded import check_bound
from flatwater.guard.policy import Limits


class Pace:
    """When to measure next. Each ``tick_s`` while that takes at most ``share`` of the time, else as rarely as it must.

    Near a limit (from 80 % of it on) a measure may take ``near_share`` of the time, and half of it above the hard one,
    which lasts seconds. Between two measures RSS is looked at, which costs little: what rises by half of the room that
    was left is measured at once. No two measures are more than ``max_s`` apart.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        tick_s: float = 0.25,
        share: float = 0.01,
        near_share: float = 0.1,
        max_s: float = 30.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        for name, value in (("tick_s", tick_s), ("share", share), ("near_share", near_share), ("max_s", max_s)):
            check_bound(name, value, where="pace")
        self._limits = limits
        self._tick_s, self._share, self._near_share, self._max_s = tick_s, share, near_share, max_s
        self._clock = clock
        self._next = self._next_rss = -float("inf")
        self._rss, self._room = 0, float("inf")

    def due(self, now: float, rss: Callable[[], int]) -> bool:
        """Whether to measure now; ``rss`` reads the tree's RSS."""
        if now >= self._next:
            return True
        if now < self._next_rss or self._room == float("inf"):
            return False
        began = self._clock()
        rose = rss() - self._rss
        self._next_rss = now + max(self._tick_s, (self._clock() - began) / self._share)
        return rose >= self._room / 2

    def measured(self, now: float, level: int, rss: int, took_s: float) -> None:
        """A measure has been made that began at ``now``."""
        ahead = [limit for limit in (self._limits.soft, self._limits.hard) if limit is not None]
        room = min((limit - level for limit in ahead if level < limit), default=None)
        share = self._share
        if self._limits.hard is not None and level >= self._limits.hard:
            share = 0.5
        elif any(0.8 * limit <= level for limit in ahead):
            share = self._near_share
        self._next = now + min(max(self._tick_s, took_s / share), self._max_s)
        self._next_rss = now + max(self._tick_s, took_s / self._near_share)
        self._rss, self._room = rss, float("inf") if room is None else room
