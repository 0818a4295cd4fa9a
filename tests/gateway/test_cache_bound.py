"""The bounds of the HTTP cache, held against models: a list in order of use, and a plain dict for what it answers."""

from __future__ import annotations

import gc
from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flatwater.bounded import Ledger
from flatwater.bounded.schedule import Schedule
from flatwater.gateway.cache import Answer, HttpCache, Miss, Stale, cache_key
from flatwater.gateway.shelf import OVERHEAD_BYTES, PREFIX, Shelf

KEYS = [b"k%d" % number for number in range(12)]
keys = st.sampled_from(KEYS)
sizes = st.sampled_from([0, 1, 50, 300, 1000, 3000])


class ShelfMachine(RuleBasedStateMachine):
    """Without time: exactly the entries that a list in order of use would hold."""

    @initialize(max_entries=st.integers(1, 8), max_bytes=st.sampled_from([300, 1000, 4000, 20_000]))
    def make(self, max_entries: int, max_bytes: int) -> None:
        self.shelf = Shelf(
            max_entries=max_entries, max_bytes=max_bytes, max_entry_bytes=2000, max_age_s=1e6, where="test"
        )
        self.model: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()  # the least recently used first

    @rule(key=keys, size=sizes, rest=st.binary(max_size=20))
    def put(self, key: bytes, size: int, rest: bytes) -> None:
        self.model.pop(key, None)
        cost = OVERHEAD_BYTES + len(key) + len(rest) + size
        kept = cost <= self.shelf.max_entry_bytes
        assert self.shelf.put(key, 100.0, rest, b"x" * size, 0.0) == kept
        if not kept:
            return
        while self.bytes() + cost > self.shelf.room.max_bytes or len(self.model) >= self.shelf.room.max_entries:
            self.model.popitem(last=False)
        self.model[key] = (rest + b"x" * size, cost)

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        packed = self.shelf.get(key)
        assert (packed is not None) == (key in self.model)
        if packed is not None:
            whole = packed if isinstance(packed, bytes) else b"".join(packed)
            assert whole[PREFIX.size :] == self.model[key][0]
            self.model.move_to_end(key)

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        assert self.shelf.delete(key) == (self.model.pop(key, None) is not None)

    @rule(left=sizes, at_most=st.integers(0, 5))
    def shrink(self, left: int, at_most: int) -> None:
        before = self.bytes()
        room = at_most
        while self.model and self.bytes() > left and room:
            self.model.popitem(last=False)
            room -= 1
        assert self.shelf.shrink(left, at_most) == before - self.bytes()

    @rule()
    def clear(self) -> None:
        self.shelf.clear()
        self.model.clear()

    def bytes(self) -> int:
        return sum(cost for _, cost in self.model.values())

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "shelf"):
            return
        assert set(self.shelf.slots.keys()) == set(self.model)
        assert self.shelf.room.bytes == self.bytes() <= self.shelf.room.max_bytes
        statistics = self.shelf.statistics()
        assert statistics.size == len(self.model) <= self.shelf.room.max_entries


class CacheMachine(RuleBasedStateMachine):
    """With time, variants, validation and invalidation: what it answers is the last that the origin said, in time."""

    @initialize(max_entries=st.integers(3, 9), max_bytes=st.sampled_from([2000, 10_000]))
    def make(self, max_entries: int, max_bytes: int) -> None:
        self.now = 1000.0
        self.ledger = Ledger()
        self.cache = HttpCache(
            ledger=self.ledger,
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_entry_bytes=1500,
            max_age_s=100.0,
            clock=lambda: self.now,
            wall=lambda: self.now,
        )
        self.said: dict[tuple[bytes, bytes], tuple[bytes, float]] = {}  # URL and variant → body, end of freshness
        self.count = 0

    @rule(
        url=keys,
        variant=st.sampled_from([b"", b"1", b"2"]),
        size=sizes,
        lifetime=st.integers(1, 200),
        commit=st.booleans(),
    )
    def ask(self, url: bytes, variant: bytes, size: int, lifetime: int, commit: bool) -> None:
        """What a proxy does; the origin's answer is new each time."""
        key = cache_key(b"http", b"a", b"/" + url)
        varied = int(url[1:]) % 2 == 1
        request = [(b"foo", variant)] if variant else []
        found = self.cache.lookup(b"GET", key, request)
        last = self.said.get((url, variant if varied else b""))
        if isinstance(found, Answer):
            assert last is not None
            assert found.response.body == last[0]
            assert self.now < last[1]
            return
        if isinstance(found, Stale):
            assert last is not None
            assert found.stored.body == last[0]
        self.count += 1
        body = b"%d " % self.count + b"x" * size
        headers = [(b"cache-control", b"max-age=%d" % lifetime), (b"etag", b'"%d"' % self.count)]
        if varied:
            headers.append((b"vary", b"foo"))
        recorder = self.cache.record(found, 200, headers)
        assert recorder is not None
        with recorder:
            recorder.add(body)
            large = recorder.given_up
            if commit:
                recorder.commit()
        if commit or large:
            self.said[url, variant if varied else b""] = (body, self.now + lifetime)

    @rule(url=keys, variant=st.sampled_from([b"", b"1", b"2"]), lifetime=st.integers(1, 200))
    def renew(self, url: bytes, variant: bytes, lifetime: int) -> None:
        key = cache_key(b"http", b"a", b"/" + url)
        found = self.cache.lookup(b"GET", key, [(b"foo", variant)] if variant else [])
        if isinstance(found, Stale) and found.asked:
            [tag] = [value for name, value in found.validators if name == b"if-none-match"]
            assert tag == b'"%b"' % found.stored.body.split()[0]
            self.cache.refreshed(found, [(b"cache-control", b"max-age=%d" % lifetime), (b"etag", tag)])
            variant = variant if int(url[1:]) % 2 else b""
            self.said[url, variant] = (found.stored.body, self.now + lifetime)

    @rule(url=keys)
    def change(self, url: bytes) -> None:
        key = cache_key(b"http", b"a", b"/" + url)
        posted = self.cache.lookup(b"POST", key, [])
        assert isinstance(posted, Miss)
        self.cache.invalidate(posted, 200, [])
        self.said = {where: what for where, what in self.said.items() if where[0] != url}
        self.now += 0.001

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0, 250.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: hasattr(self, "cache"))
    @rule()
    def expire(self) -> None:
        self.cache.expire()

    @invariant()
    def bounds(self) -> None:
        if not hasattr(self, "cache"):
            return
        statistics = self.cache.statistics()
        assert 0 <= statistics.size <= statistics.bound
        assert statistics.bytes is not None
        assert statistics.max_bytes is not None
        assert 0 <= statistics.bytes <= statistics.max_bytes
        assert (statistics.bytes == 0) == (statistics.size == 0)
        assert statistics.recording == 0


TestShelf = ShelfMachine.TestCase
TestShelf.settings = settings(max_examples=60, stateful_step_count=40)
TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=50, stateful_step_count=40)


def shelf(**bounds: float) -> Shelf:
    given = {"max_entries": 100_000, "max_bytes": 10**8, "max_entry_bytes": 10**6, "max_age_s": 3600.0} | bounds
    return Shelf(where="test", **given)  # type: ignore[arg-type]


def test_expired_entries_leave_as_others_come() -> None:
    store = shelf()
    for number in range(20_000):
        store.put(b"old%d" % number, 10.0, b"", b"x", 0.0)
    for number in range(6000):
        store.put(b"new%d" % number, 5000.0, b"", b"x", 100.0)
    assert store.statistics().expired == 20_000  # four for each that came
    assert len(store.slots) == 6000


def test_what_is_kept_of_keys_that_left_is_bounded() -> None:
    """Cyclic use of one key more than there is room for: each leaves before its time and comes back."""
    store = shelf(max_entries=500)
    for number in range(60_000):
        store.put(b"%d" % (number % 501), 3000.0, b"", b"x", 0.0)
    assert len(store.slots) == 500
    assert store.statistics().scheduled <= 500 * 1.5 + 4096 + 1024
    assert store.statistics().evicted_entries == 60_000 - 500


def test_the_schedule_lets_go_of_chunks() -> None:
    """Days of traffic of keys that leave at once: neither chunks nor what refers to them add up."""
    schedule = Schedule(1.0, lambda key, ticket: False)
    for second in range(120_000):
        schedule.add(b"k", second % 5000 + 10_000.0)
        schedule.collect(0)
    assert len(schedule) <= 4096 + 2048
    assert len(schedule._turn) + len(schedule._due) + len(schedule._open) < 40_000


def test_nothing_outlives_max_age(ledger: Ledger) -> None:
    now = 0.0
    cache = HttpCache(ledger=ledger, max_age_s=100.0, clock=lambda: now)
    found = cache.lookup(b"GET", b"k", [])
    recorder = cache.record(found, 200, [(b"cache-control", b"max-age=100000")])
    assert recorder is not None
    recorder.commit()
    now = 99.0
    assert isinstance(cache.lookup(b"GET", b"k", []), Answer)
    now = 100.0
    assert type(cache.lookup(b"GET", b"k", [])) is Miss
    assert cache.statistics().expired == 1


def test_a_full_collection_has_little_to_follow() -> None:
    """Entries are plain bytes: the collector does not track them, however many there are."""
    store = shelf()
    gc.collect()
    before = len(gc.get_objects())
    for number in range(20_000):
        store.put(b"key%d" % number, 3000.0, b"head", b"x" * 100, 0.0)
    assert len(gc.get_objects()) - before < 1000
    assert not gc.is_tracked(store.get(b"key7"))
