"""The overload manager: the rule by itself, and the loop with a cache under pressure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.bounded import Ledger, TaskGroup
from flatwater.errors import SettingError
from flatwater.gateway.cache import HttpCache, Miss, cache_key
from flatwater.gateway.overload import Level, Overload, Thresholds, decide, trim_allocator

DEFAULT = Thresholds()
levels = st.sampled_from(Level)
shares = st.floats(0, 1.5)
lags = st.floats(0, 10)


@pytest.fixture
async def tasks(ledger: Ledger) -> AsyncIterator[TaskGroup]:
    async with TaskGroup("test", max_tasks=10, ledger=ledger) as group:
        yield group


@pytest.mark.parametrize(
    ("before", "pressure", "lag_s", "after"),
    [
        (Level.NORMAL, 0.84, 0.0, Level.NORMAL),
        (Level.NORMAL, 0.85, 0.0, Level.SHRINK),
        (Level.NORMAL, 0.92, 0.0, Level.DRAIN),
        (Level.NORMAL, 0.95, 0.0, Level.REFUSE),
        (Level.REFUSE, 0.93, 0.0, Level.REFUSE),  # not yet 0.03 below 0.95
        (Level.REFUSE, 0.91, 0.0, Level.DRAIN),
        (Level.DRAIN, 0.88, 0.0, Level.SHRINK),
        (Level.SHRINK, 0.83, 0.0, Level.SHRINK),
        (Level.SHRINK, 0.81, 0.0, Level.NORMAL),
        (Level.NORMAL, None, 0.0, Level.NORMAL),
        (Level.NORMAL, None, 0.6, Level.DRAIN),
        (Level.NORMAL, 0.1, 1.0, Level.REFUSE),
        (Level.REFUSE, 0.1, 0.6, Level.REFUSE),
        (Level.REFUSE, 0.1, 0.4, Level.DRAIN),
        (Level.DRAIN, 0.1, 0.2, Level.NORMAL),
    ],
)
def test_levels(before: Level, pressure: float | None, lag_s: float, after: Level) -> None:
    assert decide(before, pressure, lag_s, DEFAULT) == after


@given(levels, shares, shares, lags, lags)
def test_more_pressure_never_means_less(before: Level, one: float, other: float, lag: float, more_lag: float) -> None:
    less = decide(before, min(one, other), min(lag, more_lag), DEFAULT)
    more = decide(before, max(one, other), max(lag, more_lag), DEFAULT)
    assert less <= more


@given(levels, shares, lags)
def test_a_level_is_stable(before: Level, pressure: float, lag_s: float) -> None:
    """The same figures again change nothing: it cannot flap without a cause."""
    after = decide(before, pressure, lag_s, DEFAULT)
    assert decide(after, pressure, lag_s, DEFAULT) == after


@pytest.mark.parametrize(
    "wrong",
    [
        {"shrink_at": 0.93},
        {"refuse_at": 1.2},
        {"hysteresis": 0.0},
        {"hysteresis": 0.9},
        {"drain_lag_s": 2.0},
        {"drain_lag_s": 0.0},
    ],
)
def test_thresholds_in_order(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="overload"):
        Thresholds(**wrong)


class Memory:
    """A process of which the cache is a part."""

    def __init__(self, ledger: Ledger) -> None:
        self.cache = HttpCache(ledger=ledger, max_bytes=10**6)
        self.rest = 0
        self.limit: int | None = 1_000_000

    def read(self) -> tuple[int, int | None]:
        return self.rest + self.cache.held_bytes, self.limit

    def fill(self, count: int) -> None:
        for number in range(count):
            found = self.cache.lookup(b"GET", cache_key(b"http", b"a", b"/%d" % number), [])
            assert isinstance(found, Miss)
            recorder = self.cache.record(found, 200, [(b"cache-control", b"max-age=1000")])
            assert recorder is not None
            recorder.add(bytes(1000))
            recorder.commit()


def overload(memory: Memory, tasks: TaskGroup, ledger: Ledger, **options: object) -> Overload:
    return Overload(memory.read, memory.cache, tasks, ledger=ledger, **options)  # type: ignore[arg-type]


async def test_the_cache_gives_way_first(ledger: Ledger, tasks: TaskGroup) -> None:
    memory = Memory(ledger)
    memory.fill(300)
    trims: list[float] = []
    watch = overload(memory, tasks, ledger, trim=lambda: trims.append(1), trim_every_s=5.0)
    assert watch.check(0.0, 0.0) == Level.NORMAL
    memory.rest = 860_000 - memory.cache.held_bytes
    assert watch.check(0.0, 1.0) == Level.SHRINK
    assert memory.read()[0] <= 820_000  # below the end of the level, so that the next look finds it over
    assert len(memory.cache) > 200  # and no more than that
    assert watch.check(0.0, 1.25) == Level.NORMAL
    memory.rest = 870_000 - memory.cache.held_bytes
    watch.check(0.0, 1.5)
    statistics = watch.statistics()
    assert (statistics.shrinking, statistics.trims, len(trims)) == (2, 1, 1)  # the allocator is not asked that often
    assert statistics.freed >= 80_000
    assert memory.cache.statistics().shrunk > 0


async def test_eviction_goes_in_steps(ledger: Ledger, tasks: TaskGroup) -> None:
    memory = Memory(ledger)
    memory.fill(300)
    watch = overload(memory, tasks, ledger, max_evicted=10, trim=lambda: None)
    memory.rest = 990_000
    watch.check(0.0, 0.0)
    assert len(memory.cache) == 290
    watch.check(0.0, 0.25)
    assert len(memory.cache) == 280


async def test_drain_and_refuse(ledger: Ledger, tasks: TaskGroup) -> None:
    memory = Memory(ledger)
    watch = overload(memory, tasks, ledger, trim=lambda: None, retry_after_s=7)
    memory.rest = 930_000
    watch.check(0.0, 0.0)
    assert (watch.draining, watch.refusing) == (True, False)
    watch.drain()
    memory.rest = 960_000
    watch.check(0.0, 0.25)
    assert (watch.draining, watch.refusing, watch.refuse()) == (True, True, 7)
    memory.rest = 100_000
    watch.check(0.0, 0.5)
    assert (watch.draining, watch.refusing) == (False, False)
    statistics = watch.statistics()
    assert (statistics.draining, statistics.refusing, statistics.drained, statistics.refused) == (1, 1, 1, 1)
    assert (statistics.size, statistics.bytes, statistics.max_bytes) == (0, 100_000, 1_000_000)
    assert statistics.peak_pressure == 0.96


async def test_one_late_look_is_no_overload_two_are(ledger: Ledger, tasks: TaskGroup) -> None:
    watch = overload(Memory(ledger), tasks, ledger, trim=lambda: None)
    assert watch.check(3.0, 0.0) == Level.NORMAL
    assert watch.check(0.0, 0.25) == Level.NORMAL
    watch.check(2.0, 2.5)
    assert watch.check(2.0, 5.0) == Level.REFUSE


async def test_no_limit_and_no_reading(ledger: Ledger, tasks: TaskGroup) -> None:
    memory = Memory(ledger)
    memory.limit, memory.rest = None, 10**12
    watch = overload(memory, tasks, ledger, trim=lambda: None)
    assert watch.check(0.0, 0.0) == Level.NORMAL
    assert watch.statistics().max_bytes is None

    def broken() -> tuple[int, int | None]:
        raise OSError("gone")

    watch = Overload(broken, None, tasks, ledger=ledger)
    assert watch.check(0.0, 0.0) == Level.NORMAL
    assert watch.statistics().read_errors == 1


async def test_the_loop_looks_and_leaves(ledger: Ledger, tasks: TaskGroup) -> None:
    memory = Memory(ledger)
    async with overload(memory, tasks, ledger, interval_s=0.01, trim=lambda: None) as watch:
        memory.rest = 990_000
        while not watch.refusing:
            await asyncio.sleep(0.01)
        memory.rest = 0
        while watch.refusing:
            await asyncio.sleep(0.01)
        memory.rest = 990_000
        while not watch.refusing:
            await asyncio.sleep(0.01)
    assert not watch.refusing  # nobody looks any more
    await watch.stop()
    assert len(tasks) == 0


async def test_the_loop_measures_its_lag(ledger: Ledger, tasks: TaskGroup) -> None:
    thresholds = Thresholds(drain_lag_s=0.05, refuse_lag_s=0.1)
    async with overload(Memory(ledger), tasks, ledger, interval_s=0.01, thresholds=thresholds) as watch:
        while not watch.refusing:
            time.sleep(0.2)  # noqa: ASYNC251  # a loop that does other things than looking
            await asyncio.sleep(0)
        assert watch.statistics().lag_s >= 0.1


def test_trimming_does_no_harm() -> None:
    trim_allocator()
