"""A cache bounded in entries, in bytes and in time.

The time is kept here, because cachebox's caches with a time to live do not evict the least recently used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, NamedTuple, TypeVar, overload

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.bounded.room import Room
from flatwater.bounded.schedule import Schedule
from flatwater.errors import SettingError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_EXPIRED_PER_PUT = 4  # due keys that a put looks at: more than one, so that what is due goes away faster than it comes
_SPANS = 64  # a key is found due at most this part of its time late; look-up itself is exact


class CacheStatistics(Usage, frozen=True, kw_only=True):
    """``evictions`` = ``evicted_entries`` + ``evicted_bytes`` + ``expired`` + ``oversize_evictions``, by cause.

    ``oversize`` counts values refused for being larger than the whole cache; ``oversize_evictions`` the old values
    that such refusals replaced. ``scheduled`` places wait for their time, those of entries that left before included.
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
    ticket: int  # in the schedule


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
        self._schedule: Schedule[K] = Schedule(ttl_s / _SPANS, self._is_held)
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
        self._room.put(key, _Slot(value, expires_at, size, self._schedule.add(key, expires_at)), size)
        self._stored += 1
        self._schedule.collect(len(self._slots))
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
        self._schedule.clear()

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
        gone = sum(self._room.take(key) for key in self._schedule.due(now, max_keys))
        self._expired += gone
        return gone

    def _is_held(self, key: K, ticket: int) -> bool:
        slot: _Slot[V] | None = self._slots.peek(key)
        return slot is not None and slot.ticket == ticket
