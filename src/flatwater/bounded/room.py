"""Entries that leave when there is no room for others: the least recently used first, by number and by bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachebox import LRUCache

from flatwater.bounded.ledger import check_bound

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Room(Generic[K, V]):
    """What caches keep their entries in; they look up in ``slots`` themselves. ``where`` names the cache in errors.

    cachebox's LRU keeps the order; the bytes are counted here, because its own byte bound keeps serving the old value
    when an overwrite is too large. ``sizeof`` gives the bytes of an entry that is here, the same each time.
    """

    __slots__ = ("_sizeof", "bytes", "evicted_bytes", "evicted_entries", "max_bytes", "max_entries", "slots")

    def __init__(self, *, max_entries: int, max_bytes: int, sizeof: Callable[[K, V], int], where: str) -> None:
        check_bound("max_entries", max_entries, where=where)
        check_bound("max_bytes", max_bytes, where=where)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.slots: LRUCache[K, V] = LRUCache(max_entries)
        self.bytes = 0
        self.evicted_entries = self.evicted_bytes = 0
        self._sizeof = sizeof

    def put(self, key: K, value: V, size: int) -> None:
        """Keep an entry of ``size`` bytes, at most ``max_bytes``, whose key is not here; others may leave for it."""
        while self.bytes + size > self.max_bytes:
            self.evict()
            self.evicted_bytes += 1
        while len(self.slots) >= self.max_entries:
            self.evict()
            self.evicted_entries += 1
        self.slots.insert(key, value)
        self.bytes += size

    def take(self, key: K) -> bool:
        """Let go of an entry; False when it was not here."""
        value: V | None = self.slots.pop(key, None)
        if value is None:
            return False
        self.bytes -= self._sizeof(key, value)
        return True

    def evict(self) -> None:
        """Let go of the least recently used entry."""
        key, value = self.slots.popitem()
        self.bytes -= self._sizeof(key, value)

    def shrink(self, max_bytes: int, max_entries: int) -> int:
        """Evict until ``max_bytes`` are left, at most ``max_entries``; return how many left."""
        before = len(self.slots)
        while self.slots and self.bytes > max_bytes and before - len(self.slots) < max_entries:
            self.evict()
        return before - len(self.slots)

    def clear(self) -> None:
        self.slots.clear()
        self.bytes = 0
