"""Giving way before memory or time runs out: shrink the cache, end idle connections, refuse requests, in this order.

Memory pressure is what is used of the limit; lag is by how much the event loop is late. :func:`decide` is the whole
rule; :class:`Overload` looks every ``interval_s`` and acts. The idea is that of Envoy's overload manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self

from flatwater.bounded import Histogram, Ledger, TaskGroup, Usage, check_bound
from flatwater.errors import SettingError

log = logging.getLogger(__name__)

Read = Callable[[], tuple[int, int | None]]
"""Bytes used, without what the kernel can take back at will (page cache), and the limit, None without one."""


class Level(IntEnum):
    """What is done; each includes those below it."""

    NORMAL = 0
    SHRINK = 1
    DRAIN = 2
    REFUSE = 3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When each level begins: shares of the memory limit, and seconds of lag.

    A level ends when pressure is ``hysteresis`` below its beginning (of lag: at half of it). Lag counts when two looks
    in a row have found it, so that one slow call changes nothing. Raises SettingError when the order is not kept.
    """

    shrink_at: float = 0.85
    drain_at: float = 0.92
    refuse_at: float = 0.95
    hysteresis: float = 0.03
    drain_lag_s: float = 0.5
    refuse_lag_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.hysteresis < self.shrink_at <= self.drain_at <= self.refuse_at <= 1:
            raise SettingError(
                f"shrink_at {self.shrink_at}, drain_at {self.drain_at}, refuse_at {self.refuse_at}",
                where="overload",
                hint="give shares of the limit in this order, above the hysteresis and at most 1",
            )
        if not 0 < self.drain_lag_s <= self.refuse_lag_s:
            raise SettingError(
                f"drain_lag_s {self.drain_lag_s}, refuse_lag_s {self.refuse_lag_s}",
                where="overload",
                hint="give seconds above zero, the lag for refusing not below that for draining",
            )


def decide(before: Level, pressure: float | None, lag_s: float, thresholds: Thresholds) -> Level:
    """The level that follows ``before``. ``pressure`` is used / limit, None without a limit."""
    return max(_by_memory(before, pressure or 0.0, thresholds), _by_lag(before, lag_s, thresholds))


def _by_memory(before: Level, pressure: float, thresholds: Thresholds) -> Level:
    begins = (thresholds.shrink_at, thresholds.drain_at, thresholds.refuse_at)
    for level, at in zip((Level.REFUSE, Level.DRAIN, Level.SHRINK), reversed(begins), strict=True):
        if pressure >= at or (before >= level and pressure > at - thresholds.hysteresis):
            return level
    return Level.NORMAL


def _by_lag(before: Level, lag_s: float, thresholds: Thresholds) -> Level:
    for level, at in ((Level.REFUSE, thresholds.refuse_lag_s), (Level.DRAIN, thresholds.drain_lag_s)):
        if lag_s >= at or (before >= level and lag_s > at / 2):
            return level
    return Level.NORMAL


class Shrinking(Protocol):
    """What gives memory back: :class:`flatwater.gateway.cache.HttpCache`."""

    def shrink(self, max_bytes: int, max_entries: int = ...) -> int: ...

    @property
    def held_bytes(self) -> int: ...


class OverloadStatistics(Usage, frozen=True, kw_only=True):
    """``size`` is the level (0 … 3), ``bytes`` of ``max_bytes`` the memory at the last look (None without a limit).

    ``pressure`` and ``lag_s`` at the last look, and their peaks. Since the start: looks by ``checks``; how often each
    level was ``shrinking``, ``draining``, ``refusing`` entered; ``freed`` bytes of the cache, ``trims`` of the
    allocator, connections ``drained``, requests ``refused``, ``read_errors``.
    """

    pressure: float
    lag_s: float
    peak_pressure: float
    peak_lag_s: float
    checks: int
    shrinking: int
    draining: int
    refusing: int
    freed: int
    trims: int
    drained: int
    refused: int
    read_errors: int


class Overload:
    """``async with`` looks until it is left.

    On each request: answer 503 with ``retry_after_s`` while :attr:`refusing` (and say so with :meth:`refuse`); send
    ``connection: close`` while :attr:`draining` (:meth:`drain`). From the level ``SHRINK`` on, each look evicts from
    ``cache`` what is above the level's end, at most ``max_evicted`` entries at a time so that the loop goes on, and
    gives free memory back to the system at most every ``trim_every_s``. :attr:`lag` has the lag of every look.
    """

    kind = "overload manager"

    def __init__(
        self,
        read: Read,
        cache: Shrinking | None,
        tasks: TaskGroup,
        *,
        ledger: Ledger,
        name: str = "gateway overload",
        thresholds: Thresholds | None = None,
        interval_s: float = 0.25,
        retry_after_s: int = 2,
        max_evicted: int = 20_000,
        trim_every_s: float = 5.0,
        trim: Callable[[], None] | None = None,
    ) -> None:
        check_bound("interval_s", interval_s, where=name)
        check_bound("max_evicted", max_evicted, where=name)
        self.name = name
        self.lag = Histogram(f"loop lag of {name}", ledger=ledger)
        self.level = Level.NORMAL
        self.refusing = False
        self.draining = False
        self.retry_after_s = retry_after_s
        self._read = read
        self._cache = cache
        self._tasks = tasks
        self._thresholds = thresholds or Thresholds()
        self._interval_s = interval_s
        self._max_evicted = max_evicted
        self._trim_every_s = trim_every_s
        self._trim = trim or trim_allocator
        self._trimmed_at = float("-inf")
        self._running: asyncio.Task[None] | None = None
        self._used = 0
        self._limit: int | None = None
        self._lag_s = self._lag_before_s = 0.0
        self._peak_pressure = self._peak_lag_s = 0.0
        self._entered = dict.fromkeys(Level, 0)
        self._checks = self._freed = self._trims = self._drained = self._refused = self._read_errors = 0
        ledger.register(self)

    async def __aenter__(self) -> Self:
        self._running = self._tasks.start(self._run(), name=self.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Look no more; the level goes back to normal. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        self._set(Level.NORMAL)

    def use(self, cache: Shrinking) -> None:
        """Shrink ``cache`` from now on."""
        self._cache = cache

    def refuse(self) -> int:
        """Count a request that gets 503; return the seconds for Retry-After."""
        self._refused += 1
        return self.retry_after_s

    def drain(self) -> None:
        """Count a connection that is told to close after its response."""
        self._drained += 1

    def check(self, lag_s: float, now: float) -> Level:
        """Look once: ``lag_s`` is how late this look is, ``now`` the loop's time."""
        self._checks += 1
        self.lag.add(max(0.0, lag_s))
        pressure = self._pressure()
        lag_s, self._lag_before_s = min(lag_s, self._lag_before_s), lag_s
        self._lag_s = lag_s
        self._peak_lag_s = max(self._peak_lag_s, lag_s)
        self._peak_pressure = max(self._peak_pressure, pressure or 0.0)
        self._set(decide(self.level, pressure, lag_s, self._thresholds))
        if pressure is not None and _by_memory(self.level, pressure, self._thresholds) >= Level.SHRINK:
            self._shrink(now)
        return self.level

    def statistics(self) -> OverloadStatistics:
        return OverloadStatistics(
            size=int(self.level),
            bound=int(Level.REFUSE),
            bytes=self._used if self._limit is not None else None,
            max_bytes=self._limit,
            pressure=self._used / self._limit if self._limit else 0.0,
            lag_s=self._lag_s,
            peak_pressure=self._peak_pressure,
            peak_lag_s=self._peak_lag_s,
            checks=self._checks,
            shrinking=self._entered[Level.SHRINK],
            draining=self._entered[Level.DRAIN],
            refusing=self._entered[Level.REFUSE],
            freed=self._freed,
            trims=self._trims,
            drained=self._drained,
            refused=self._refused,
            read_errors=self._read_errors,
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval_s
            await asyncio.sleep(self._interval_s)
            now = loop.time()
            self.check(now - due, now)

    def _pressure(self) -> float | None:
        try:
            self._used, self._limit = self._read()
        except (OSError, ValueError) as error:
            self._read_errors += 1
            if self._read_errors == 1:
                log.warning("memory cannot be read, so only lag counts: %s", error)
            self._limit = None
        return self._used / self._limit if self._limit else None

    def _set(self, level: Level) -> None:
        if level == self.level:
            return
        for passed in Level:
            self._entered[passed] += self.level < passed <= level
        log.log(
            logging.WARNING if level > self.level else logging.INFO,
            "overload: %s after %s (memory %s of %s, lag %.2f s)",
            level.name,
            self.level.name,
            self._used,
            self._limit,
            self._lag_s,
        )
        self.level = level
        self.draining = level >= Level.DRAIN
        self.refusing = level >= Level.REFUSE

    def _shrink(self, now: float) -> None:
        """Evict what is above the end of the level SHRINK, and give free memory back."""
        limit = self._limit or 0
        excess = self._used - int((self._thresholds.shrink_at - self._thresholds.hysteresis) * limit)
        if self._cache is not None and excess > 0:
            self._freed += self._cache.shrink(max(0, self._cache.held_bytes - excess), self._max_evicted)
        if now - self._trimmed_at >= self._trim_every_s:
            self._trimmed_at = now
            self._trims += 1
            self._trim()


def trim_allocator() -> None:
    """Give the C allocator's free pages back to the system (malloc_trim(3)); does nothing where that does not exist."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
