"""The latest items of a stream, bounded in entries and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.errors import SettingError

T = TypeVar("T")


class HistoryStatistics(Usage, frozen=True, kw_only=True):
    """``added`` items since the start; ``oversize`` of them were larger than the whole history may be, and not kept."""

    added: int
    oversize: int


class History(Generic[T]):
    """A ring: a new item pushes out the oldest ones when there is no room.

    ``max_bytes`` needs ``sizeof``, which says how many bytes an item holds; it is asked once per item.
    """

    kind = "history"

    def __init__(
        self,
        name: str,
        *,
        max_entries: int,
        ledger: Ledger,
        max_bytes: int | None = None,
        sizeof: Callable[[T], int] | None = None,
    ) -> None:
        check_bound("max_entries", max_entries, where=name)
        if (max_bytes is None) != (sizeof is None):
            raise SettingError("max_bytes and sizeof go together", where=name, hint="give both or neither")
        if max_bytes is not None:
            check_bound("max_bytes", max_bytes, where=name)
        self.name = name
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._sizeof = sizeof
        self._items: deque[T] = deque()
        self._sizes: deque[int] = deque()  # beside the items, when bytes are counted
        self._bytes = 0
        self._added = self._evictions = self._oversize = 0
        ledger.register(self)

    def add(self, item: T) -> bool:
        """Keep ``item`` as the newest; False when it alone exceeds ``max_bytes`` and was not kept."""
        self._added += 1
        if self._max_bytes is not None and self._sizeof is not None:
            size = self._sizeof(item)
            if size > self._max_bytes:
                self._oversize += 1
                return False
            while self._bytes + size > self._max_bytes:
                self._evict()
            self._bytes += size
            self._sizes.append(size)
        if len(self._items) >= self._max_entries:
            self._evict()
        self._items.append(item)
        return True

    def latest(self, count: int) -> list[T]:
        """Up to ``count`` items, newest first."""
        return list(islice(reversed(self._items), max(count, 0)))

    def clear(self) -> None:
        self._items.clear()
        self._sizes.clear()
        self._bytes = 0

    def statistics(self) -> HistoryStatistics:
        return HistoryStatistics(
            size=len(self._items),
            bound=self._max_entries,
            bytes=None if self._sizeof is None else self._bytes,
            max_bytes=self._max_bytes,
            evictions=self._evictions,
            added=self._added,
            oversize=self._oversize,
        )

    def __iter__(self) -> Iterator[T]:
        """Oldest first."""
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def _evict(self) -> None:
        self._items.popleft()
        if self._sizes:
            self._bytes -= self._sizes.popleft()
        self._evictions += 1
