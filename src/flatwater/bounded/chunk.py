"""Large inputs in pieces: only one piece is in memory at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from flatwater.bounded.ledger import check_bound
from flatwater.errors import SettingError

T = TypeVar("T")


def chunks(
    items: Iterable[T],
    *,
    max_items: int,
    max_bytes: int | None = None,
    sizeof: Callable[[T], int] | None = None,
) -> Iterator[list[T]]:
    """The items in order, as lists of at most ``max_items`` and, by ``sizeof``, ``max_bytes``.

    An item larger than ``max_bytes`` comes alone. Nothing of a former list is held. Raises SettingError for a bound
    that is no bound, and for one of ``max_bytes`` and ``sizeof`` without the other.
    """
    chunk = _Chunk(max_items, max_bytes, sizeof)
    return _chunks(items, chunk)


def _chunks(items: Iterable[T], chunk: _Chunk[T]) -> Iterator[list[T]]:
    for item in items:
        if full := chunk.add(item):
            yield full
            del full  # or it would live until the next one
    if chunk.items:
        yield chunk.take()


def achunks(
    items: AsyncIterable[T],
    *,
    max_items: int,
    max_bytes: int | None = None,
    sizeof: Callable[[T], int] | None = None,
) -> AsyncIterator[list[T]]:
    """As :func:`chunks`, of an asynchronous source."""
    chunk = _Chunk(max_items, max_bytes, sizeof)
    return _achunks(items, chunk)


async def _achunks(items: AsyncIterable[T], chunk: _Chunk[T]) -> AsyncIterator[list[T]]:
    async for item in items:
        if full := chunk.add(item):
            yield full
            del full
    if chunk.items:
        yield chunk.take()


class _Chunk(Generic[T]):
    """The list that is being filled."""

    def __init__(self, max_items: int, max_bytes: int | None, sizeof: Callable[[T], int] | None) -> None:
        check_bound("max_items", max_items, where="chunks")
        if (max_bytes is None) != (sizeof is None):
            raise SettingError("max_bytes and sizeof go together", where="chunks", hint="give both or neither")
        if max_bytes is not None:
            check_bound("max_bytes", max_bytes, where="chunks")
        self.items: list[T] = []
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._sizeof = sizeof
        self._bytes = 0

    def add(self, item: T) -> list[T]:
        """Take an item; what was full before it, or nothing."""
        size = 0 if self._sizeof is None else self._sizeof(item)
        crowded = self._max_bytes is not None and self._bytes + size > self._max_bytes
        full = self.take() if self.items and (crowded or len(self.items) >= self._max_items) else []
        self.items.append(item)
        self._bytes += size
        return full

    def take(self) -> list[T]:
        """What there is; the list begins anew."""
        full, self.items, self._bytes = self.items, [], 0
        return full
