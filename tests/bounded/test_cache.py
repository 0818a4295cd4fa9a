from __future__ import annotations

import gc
from collections import OrderedDict
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flatwater.bounded import Cache, CacheStatistics, Ledger
from flatwater.errors import SettingError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def size_of(key: object, value: str) -> int:
    return len(value)


def make(ledger: Ledger, clock: Clock, *, max_entries: int = 3, max_bytes: int = 10) -> Cache[str, str]:
    return Cache(
        "c", max_entries=max_entries, max_bytes=max_bytes, ttl_s=60, sizeof=size_of, ledger=ledger, clock=clock
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_least_recently_used_leaves_first(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock)
    for key in "abc":
        cache.put(key, key)
    cache.get("a")
    cache.put("d", "d")
    assert [key for key in "abcd" if key in cache] == ["a", "c", "d"]
    assert cache.statistics().evicted_entries == 1


def test_bytes_are_bounded(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock, max_entries=100)
    for key in "abcdef":
        cache.put(key, "1234")
    statistics = cache.statistics()
    assert statistics.bytes == 8
    assert statistics.evicted_bytes == 4
    assert statistics.evictions == 4


def test_oversize_overwrite_takes_the_old_value_along(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock)
    cache.put("a", "old")
    assert not cache.put("a", "new, but far too long")
    assert cache.get("a") is None
    statistics = cache.statistics()
    assert (statistics.bytes, statistics.oversize, statistics.oversize_evictions) == (0, 1, 1)


def test_expired_value_is_not_served(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock)
    cache.put("a", "a")
    cache.put("b", "b", ttl_s=120)
    clock.now += 59.9
    assert cache.get("a") == "a"
    clock.now += 0.1
    assert "a" not in cache
    assert cache.get("a", "gone") == "gone"
    assert cache.get("b") == "b"
    assert cache.statistics().expired == 1


def test_expired_entries_leave_as_others_come(ledger: Ledger, clock: Clock) -> None:
    """The trap of a time to live that is only looked at on look-up: entries nobody asks for again stay for ever."""
    cache = make(ledger, clock, max_entries=10_000, max_bytes=100_000)
    for number in range(1000):
        cache.put(f"old {number}", "x")
    clock.now += 62  # the time to live and the width of a list of the schedule
    for number in range(300):
        cache.put(f"new {number}", "x")
    assert len(cache) == 300
    assert cache.statistics().expired == 1000


def test_expire_and_shrink_give_back(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock, max_entries=100, max_bytes=100)
    for number in range(20):
        cache.put(f"{number}", "12345")
    assert cache.shrink(52) == 50
    assert cache.statistics().bytes == 50
    assert "19" in cache
    assert "0" not in cache
    clock.now += 62
    assert cache.expire(max_keys=15) <= 15
    cache.expire()
    assert len(cache) == 0
    assert cache.statistics().bytes == 0


def test_schedule_stays_small_when_one_key_is_stored_again_and_again(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock)
    for _ in range(20_000):
        cache.put("a", "a")
    assert cache.statistics().scheduled <= 4096 + 1024


def test_value_with_no_time_to_live_is_not_kept(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock)
    cache.put("a", "old")
    assert not cache.put("a", "new", ttl_s=0)
    assert cache.get("a") is None
    with pytest.raises(SettingError, match="ttl_s"):
        cache.put("a", "for ever", ttl_s=inf)


def test_hits_and_misses_are_counted(ledger: Ledger, clock: Clock) -> None:
    cache = make(ledger, clock)
    cache.put("a", "a")
    for key in "aab":
        cache.get(key)
    assert cache.delete("a")
    assert not cache.delete("a")
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.evictions) == (2, 1, 0)


def test_a_cycle_through_the_cache_is_collected(clock: Clock) -> None:
    ledger = Ledger()
    cache: Cache[str, object] = Cache(
        "c", max_entries=1, max_bytes=1, ttl_s=1, sizeof=lambda key, value: 1, ledger=ledger
    )
    cache.put("self", cache)
    del cache
    gc.collect()
    assert len(ledger) == 0


def test_bounds_are_checked(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(SettingError, match="max_bytes is 0"):
        make(ledger, clock, max_bytes=0)


class CacheMachine(RuleBasedStateMachine):
    """Against a model: an ordered dict of (value, expiry), trimmed by hand. Time passes in whole seconds."""

    keys = st.integers(0, 7)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache: Cache[int, str] = Cache(
            "c", max_entries=4, max_bytes=20, ttl_s=10, sizeof=size_of, ledger=Ledger(), clock=self.clock
        )
        self.model: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def alive(self) -> dict[int, str]:
        return {key: value for key, (value, until) in self.model.items() if until > self.clock.now}

    @rule(key=keys, size=st.integers(0, 25), ttl_s=st.one_of(st.none(), st.integers(-1, 30)))
    def put(self, key: int, size: int, ttl_s: int | None) -> None:
        # What is due leaves first; the cache may look at a few only, so that the model is told what it dropped.
        kept = self.cache.put(key, "x" * size, ttl_s=ttl_s)
        lifetime = 10 if ttl_s is None else ttl_s
        assert kept == (size <= 20 and lifetime > 0)
        self.model.pop(key, None)
        if kept:
            self.model[key] = ("x" * size, self.clock.now + lifetime)
        self.forget_evicted()

    def forget_evicted(self) -> None:
        """Entries that the cache no longer has must be expired, or older in use than all that it still has."""
        present = {key for key in self.model if key in self.cache}
        alive = list(self.alive())
        gone = [key for key in alive if key not in present]
        assert gone == alive[: len(gone)], "something more recently used was evicted before something older"
        if gone:
            # Never evict without need: what is gone must not have fitted beside what is still there.
            sizes = self.cache.statistics().bytes or 0
            first_gone = gone[-1]
            full = len(self.cache) + 1 > 4 or sizes + len(self.model[first_gone][0]) > 20
            assert full, "evicted although there was room"
        for key in [key for key in self.model if key not in present]:
            del self.model[key]

    @rule(key=keys)
    def get(self, key: int) -> None:
        value = self.cache.get(key)
        assert value == self.alive().get(key)
        if value is None:
            self.model.pop(key, None)
        else:
            self.model.move_to_end(key)

    @rule(key=keys)
    def delete(self, key: int) -> None:
        was_alive = key in self.alive()
        assert self.cache.delete(key) or not was_alive
        self.model.pop(key, None)

    @rule(seconds=st.integers(0, 20))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def expire(self) -> None:
        self.cache.expire()

    @rule(max_bytes=st.integers(0, 20))
    def shrink(self, max_bytes: int) -> None:
        before = self.cache.statistics().bytes or 0
        given_back = self.cache.shrink(max_bytes)
        assert (self.cache.statistics().bytes or 0) == before - given_back <= max(max_bytes, 0)
        self.model = OrderedDict((key, entry) for key, entry in self.model.items() if key in self.cache)

    @invariant()
    def as_the_model(self) -> None:
        statistics: CacheStatistics = self.cache.statistics()
        assert statistics.size <= 4
        assert 0 <= (statistics.bytes or 0) <= 20
        assert all((key in self.cache) == (key in self.alive()) for key in range(8))
        assert statistics.size >= len(self.alive())


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
