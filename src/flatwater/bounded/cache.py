"""A cache bounded in entries, in bytes and in time.

The time is kept here, because cachebox's caches with a time to live do not evict the least recently used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from math import inf
from typing import Generic, NamedTuple, TypeVar, overload

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.bounded.room import Room
from flatwater.errors import SettingError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_EXPIRED_PER_PUT = (
    4  # how many due keys a put looks at: more than one, so that the schedule shrinks faster than it grows
)


class CacheStatistics(Usage, frozen=True, kw_only=True):
    """``evictions`` = ``evicted_entries`` + ``evicted_bytes`` + ``expired`` + ``oversize_evictions``, by cause.

    ``oversize`` counts values refused for being larger than the whole cache; ``oversize_evictions`` the old values
    that such refusals replaced. ``scheduled`` is the number of keys that wait for their expiry (at most about twice
    the entries).
    """

    hits: int
    misses: int
    stored: int
    evicted_entries: int
    evicted_bytes: int
    expired: int
    oversize: int
    oversize_evictions: int
    scheduled: int


class _Slot(NamedTuple, Generic[V]):
    value: V
    expires_at: float
    size: int


class Cache(Generic[K, V]):
    """Least recently used entries leave first; expired ones are never served, and leave as others come.

    ``sizeof(key, value)`` says how many bytes an entry holds and is asked once, at ``put``. To be used from one thread.
    """

    kind = "cache"

    def __init__(
        self,
        name: str,
        *,
        max_entries: int,
        max_bytes: int,
        ttl_s: float,
        sizeof: Callable[[K, V], int],
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._room: Room[K, _Slot[V]] = Room(
            max_entries=max_entries, max_bytes=max_bytes, sizeof=lambda _, slot: slot.size, where=name
        )
        check_bound("ttl_s", ttl_s, where=name)
        self.name = name
        self._ttl_s = ttl_s
        self._sizeof = sizeof
        self._clock = clock
        self._slots = self._room.slots
        self._schedule: _Schedule[K] = _Schedule(ttl_s)
        self._hits = self._misses = self._stored = 0
        self._expired = self._oversize = self._oversize_evictions = 0
        ledger.register(self)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The value of ``key`` if it is here and not expired; it becomes the most recently used."""
        slot: _Slot[V] | None = self._slots.get(key)
        if slot is None:
            self._misses += 1
            return default
        if slot.expires_at <= self._clock():
            self._expire(key)
            self._misses += 1
            return default
        self._hits += 1
        return slot.value

    def put(self, key: K, value: V, *, ttl_s: float | None = None) -> bool:
        """Store a value for ``ttl_s`` (default: the cache's).

        False when it was not kept, because it is larger than the whole cache or ``ttl_s`` is not above zero. The old
        value of the key is gone in any case, for it is out of date. Raises SettingError when ``ttl_s`` is not finite.
        """
        lifetime_s = self._ttl_s if ttl_s is None else ttl_s
        if not lifetime_s < inf:
            raise SettingError(f"ttl_s is {lifetime_s}", where=self.name, hint="give a finite number of seconds")
        replaced = self._room.take(key)
        now = self._clock()
        self._expire_due(now, _EXPIRED_PER_PUT)
        size = self._sizeof(key, value)
        if size > self._room.max_bytes:
            self._oversize += 1
            self._oversize_evictions += replaced
            return False
        if lifetime_s <= 0:
            return False
        expires_at = now + lifetime_s
        self._room.put(key, _Slot(value, expires_at, size), size)
        self._stored += 1
        self._schedule.add(key, expires_at)
        self._prune_schedule()
        return True

    def delete(self, key: K) -> bool:
        """Forget ``key``; False when it was not here. Not counted as an eviction."""
        return self._room.take(key)

    def expire(self, max_keys: int = 1000) -> int:
        """Drop entries whose time has passed, looking at no more than ``max_keys``; return how many left."""
        return self._expire_due(self._clock(), max_keys)

    def shrink(self, max_bytes: int) -> int:
        """Evict the least recently used until at most ``max_bytes`` are held; return the bytes given back.

        For the moment when memory is short: the bound itself stays as it is.
        """
        room = self._room
        before = room.bytes
        room.evicted_bytes += room.shrink(max_bytes, len(self._slots))
        self._slots.shrink_to_fit()
        return before - room.bytes

    def clear(self) -> None:
        self._room.clear()
        self._schedule = _Schedule(self._ttl_s)

    def statistics(self) -> CacheStatistics:
        room = self._room
        evictions = room.evicted_entries + room.evicted_bytes + self._expired + self._oversize_evictions
        return CacheStatistics(
            size=len(self._slots),
            bound=room.max_entries,
            bytes=room.bytes,
            max_bytes=room.max_bytes,
            evictions=evictions,
            hits=self._hits,
            misses=self._misses,
            stored=self._stored,
            evicted_entries=room.evicted_entries,
            evicted_bytes=room.evicted_bytes,
            expired=self._expired,
            oversize=self._oversize,
            oversize_evictions=self._oversize_evictions,
            scheduled=len(self._schedule),
        )

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: K) -> bool:
        """Whether ``get`` would find it; neither counts nor refreshes."""
        slot: _Slot[V] | None = self._slots.peek(key)
        return slot is not None and slot.expires_at > self._clock()

    def _expire(self, key: K) -> None:
        self._expired += self._room.take(key)

    def _expire_due(self, now: float, max_keys: int) -> int:
        before = self._expired
        for key in self._schedule.due(now, max_keys):
            slot: _Slot[V] | None = self._slots.peek(key)
            if slot is not None and slot.expires_at <= now:  # not stored again meanwhile, for longer
                self._expire(key)
        return self._expired - before

    def _prune_schedule(self) -> None:
        """Keys that were evicted or stored again leave their old place behind; rebuild when those are the majority."""
        if len(self._schedule) > 2 * len(self._slots) + 1000:
            fresh: _Schedule[K] = _Schedule(self._ttl_s)
            for key, slot in self._slots.items():
                fresh.add(key, slot.expires_at)
            self._schedule = fresh


class _Schedule(Generic[K]):
    """Keys by the time at which they are due, in lists of keys due at about the same time: 8 bytes a key."""

    def __init__(self, ttl_s: float) -> None:
        self._width_s = ttl_s / 64  # a key is found due at most this much late; look-up itself is exact
        self._lists: dict[int, list[K]] = {}
        self._order: list[int] = []  # heap of the keys of _lists
        self._count = 0

    def add(self, key: K, at: float) -> None:
        index = int(at / self._width_s) + 1  # the end of its span, so that all in it are due together
        keys = self._lists.get(index)
        if keys is None:
            self._lists[index] = [key]
            heappush(self._order, index)
        else:
            keys.append(key)
        self._count += 1

    def due(self, now: float, max_keys: int) -> list[K]:
        """Take out up to ``max_keys`` keys whose span has passed."""
        taken: list[K] = []
        while self._order and self._order[0] * self._width_s <= now and len(taken) < max_keys:
            keys = self._lists[self._order[0]]
            room = max_keys - len(taken)
            taken += keys[-room:]
            del keys[-room:]
            if not keys:
                del self._lists[heappop(self._order)]
        self._count -= len(taken)
        return taken

    def __len__(self) -> int:
        return self._count
