"""The store of the HTTP cache: packed entries, least recently used out first, bounded in entries, bytes and age.

An entry is one bytes object (a larger body stands beside its head, so that it need not be copied to be sent), so that
an entry costs little and the garbage collector has nothing to follow.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from flatwater.bounded import Usage, check_bound
from flatwater.bounded.room import Room
from flatwater.bounded.schedule import Schedule

Packed = bytes | tuple[bytes, bytes]
"""Prefix, fixed part, head and body in one; or the body by itself."""

PREFIX = Struct("<Id")  # ticket in the schedule, the moment (monotonic) after which the entry must not be used
OVERHEAD_BYTES = 200
"""What an entry costs beyond its key, its head and its body: measured by benchmarks/gateway_cache.py."""

MAX_INLINE_BYTES = 16_384
_EXPIRED_PER_PUT = 4  # more than one, so that what is due goes away faster than it comes
_SPANS = 1024


class ShelfStatistics(Usage, frozen=True, kw_only=True):
    """``evictions`` = ``evicted_entries`` + ``evicted_bytes`` + ``expired`` + ``oversize_evictions`` + ``shrunk``.

    ``oversize`` entries were refused for their size, ``oversize_evictions`` of those in the place of an older one,
    which is gone. ``scheduled`` places wait for their time, those of entries that left before included.
    """

    stored: int
    evicted_entries: int
    evicted_bytes: int
    expired: int
    oversize: int
    oversize_evictions: int
    shrunk: int
    deleted: int
    purged: int
    scheduled: int


class Shelf:
    """To be used from one thread. ``now`` is a monotonic clock's."""

    def __init__(self, *, max_entries: int, max_bytes: int, max_entry_bytes: int, max_age_s: float, where: str) -> None:
        self.room: Room[bytes, Packed] = Room(max_entries=max_entries, max_bytes=max_bytes, sizeof=_size, where=where)
        check_bound("max_entry_bytes", max_entry_bytes, where=where)
        check_bound("max_age_s", max_age_s, where=where)
        self.max_entry_bytes = min(max_entry_bytes, max_bytes)
        self.max_age_s = max_age_s
        self.slots = self.room.slots
        self.get: Callable[[bytes], Packed | None] = self.slots.get
        self._schedule: Schedule[bytes] = Schedule(max(0.1, max_age_s / _SPANS), self._is_held)
        self._stored = self._expired = 0
        self._oversize = self._oversize_evictions = self._shrunk = self._deleted = self._purged = 0

    def put(self, key: bytes, until: float, rest: bytes, body: bytes, now: float) -> bool:
        """Keep an entry until ``until`` (at most ``max_age_s``). False when it is too large, or over already.

        The old entry of the key is gone in any case.
        """
        replaced = self.room.take(key)
        for due in self._schedule.due(now, _EXPIRED_PER_PUT):
            self._expired += self.room.take(due)
        size = OVERHEAD_BYTES + len(key) + len(rest) + len(body)
        if size > self.max_entry_bytes:
            self._oversize += 1
            self._oversize_evictions += replaced
            return False
        until = min(until, now + self.max_age_s)
        if until <= now:
            return False
        prefix = PREFIX.pack(self._schedule.add(key, until), until)
        inline = len(body) <= MAX_INLINE_BYTES
        self.room.put(key, b"".join((prefix, rest, body)) if inline else (prefix + rest, body), size)
        self._stored += 1
        self._schedule.collect(len(self.slots))
        return True

    def delete(self, key: bytes) -> bool:
        """Forget an entry; False when it was not here."""
        found = self.room.take(key)
        self._deleted += found
        return found

    def expire(self, key: bytes) -> None:
        """Forget an entry that was found to be over."""
        self._expired += self.room.take(key)

    def expire_due(self, now: float, max_keys: int = 1000) -> int:
        """Forget entries whose time has passed, looking at no more than ``max_keys``; return how many left."""
        gone = sum(self.room.take(key) for key in self._schedule.due(now, max_keys))
        self._expired += gone
        return gone

    def shrink(self, max_bytes: int, max_entries: int) -> int:
        """Evict the least recently used, at most ``max_entries``, until ``max_bytes`` are left. Returns bytes freed."""
        room = self.room
        before = room.bytes
        self._shrunk += room.shrink(max_bytes, max_entries)
        if room.bytes <= max_bytes and before > max_bytes:
            self.slots.shrink_to_fit()
        return before - room.bytes

    def purge(self, matches: Callable[[bytes], bool]) -> int:
        """Forget the entries whose key ``matches``; return how many left."""
        gone = sum(self.room.take(key) for key in [key for key in self.slots if matches(key)])
        self._purged += gone
        return gone

    def clear(self) -> None:
        self._deleted += len(self.slots)
        self.room.clear()
        self._schedule.clear()

    def statistics(self) -> ShelfStatistics:
        room = self.room
        by_bound = room.evicted_entries + room.evicted_bytes + self._expired + self._oversize_evictions
        return ShelfStatistics(
            size=len(self.slots),
            bound=room.max_entries,
            bytes=room.bytes,
            max_bytes=room.max_bytes,
            evictions=by_bound + self._shrunk,
            stored=self._stored,
            evicted_entries=room.evicted_entries,
            evicted_bytes=room.evicted_bytes,
            expired=self._expired,
            oversize=self._oversize,
            oversize_evictions=self._oversize_evictions,
            shrunk=self._shrunk,
            deleted=self._deleted,
            purged=self._purged,
            scheduled=len(self._schedule),
        )

    def _is_held(self, key: bytes, ticket: int) -> bool:
        packed: Packed | None = self.slots.peek(key)
        if packed is None:
            return False
        head = packed if isinstance(packed, bytes) else packed[0]
        return bool(PREFIX.unpack_from(head)[0] == ticket)


def _size(key: bytes, packed: Packed) -> int:
    length = len(packed) if isinstance(packed, bytes) else len(packed[0]) + len(packed[1])
    return OVERHEAD_BYTES + len(key) + length - PREFIX.size
