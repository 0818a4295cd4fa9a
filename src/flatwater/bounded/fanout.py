"""One publisher, many subscribers, one bounded ring between them.

Each subscriber is a cursor into the ring, so a slow one costs nothing more than a fast one: when the ring has moved
past its cursor, the oldest messages are lost to it, and it is told how many.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

import msgspec

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.errors import LimitError, SettingError

T = TypeVar("T")
P = ParamSpec("P")


class Message(msgspec.Struct, Generic[T], frozen=True):
    """An item with its sequence number; ``lost`` messages right before it were gone before they could be read."""

    seq: int
    item: T
    lost: int = 0


class FanoutStatistics(Usage, frozen=True, kw_only=True):
    """``size`` messages are kept for replay, of ``bound``; ``lost`` counts what all slow subscribers missed."""

    published: int
    recorded: int
    oversize: int
    subscribers: int
    max_subscribers: int
    lost: int


class Fanout(Generic[T]):
    """Publish to whoever listens; whoever comes back in time gets what was published meanwhile.

    Sequence numbers start at 1. While nobody has listened for ``linger_s``, items are numbered but not kept, so that
    publishing costs next to nothing. ``max_bytes`` (with ``sizeof``) bounds the ring in bytes too. Used from one loop.
    """

    kind = "fan-out"

    def __init__(
        self,
        name: str,
        *,
        max_messages: int,
        max_subscribers: int,
        ledger: Ledger,
        max_bytes: int | None = None,
        sizeof: Callable[[T], int] | None = None,
        linger_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_bound("max_messages", max_messages, where=name)
        check_bound("max_subscribers", max_subscribers, where=name)
        if (max_bytes is None) != (sizeof is None):
            raise SettingError("max_bytes and sizeof go together", where=name, hint="give both or neither")
        if max_bytes is not None:
            check_bound("max_bytes", max_bytes, where=name)
        self.name = name
        self._ring: _Ring[T] = _Ring(max_messages, max_bytes, sizeof)
        self._max_subscribers = max_subscribers
        self._linger_s = linger_s
        self._clock = clock
        self._seq = 0
        self._subscribers = 0
        self._linger_until = 0.0
        self._sleepers: list[asyncio.Future[None]] = []
        self._lost = 0
        self._closed = False
        ledger.register(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def seq(self) -> int:
        """The number of the latest message, 0 before the first."""
        return self._seq

    @property
    def wanted(self) -> bool:
        """Whether what is published now would be kept."""
        if self._subscribers:
            return True
        if self._linger_until:
            if self._clock() < self._linger_until:
                return True
            self._linger_until = 0.0
            self._ring.clear()  # nobody came back
        return False

    def publish(self, item: T) -> int:
        """Give ``item`` the next number and hand it to those who listen; returns the number. Never waits."""
        self._seq += 1
        if self.wanted:
            self._record(item)
        return self._seq

    def offer(self, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> int:
        """As ``publish(make(…))``, but the item is only made when somebody wants it."""
        self._seq += 1
        if self.wanted:
            self._record(make(*args, **kwargs))
        return self._seq

    def subscribe(self, *, after: int | None = None, wants: Callable[[T], bool] | None = None) -> Subscription[T]:
        """Listen from now on, or from the message after number ``after``.

        What the ring no longer holds is told as ``lost``. Numbers that are not from this fan-out (above ``seq``) count
        as "from now on". ``wants`` chooses items; what is lost could not be asked, so all of it counts. Raises
        LimitError above ``max_subscribers``.
        """
        if self._subscribers >= self._max_subscribers:
            raise LimitError(
                f"{self._max_subscribers} subscribers listen already",
                where=self.name,
                hint="close a subscription or raise max_subscribers",
            )
        self._ring.resume(self._seq)
        self._subscribers += 1
        cursor = self._seq if after is None else max(0, min(after, self._seq))
        return Subscription(self, cursor, wants)

    def stop(self) -> None:
        """End every subscription after what it has not read yet. Idempotent."""
        self._closed = True
        self._wake()

    def statistics(self) -> FanoutStatistics:
        ring = self._ring
        return FanoutStatistics(
            size=len(ring),
            bound=ring.max_entries,
            bytes=None if ring.sizeof is None else ring.bytes,
            max_bytes=ring.max_bytes,
            evictions=ring.evictions,
            published=self._seq,
            recorded=ring.recorded,
            oversize=ring.oversize,
            subscribers=self._subscribers,
            max_subscribers=self._max_subscribers,
            lost=self._lost,
        )

    def _record(self, item: T) -> None:
        self._ring.put(self._seq, item)
        if self._sleepers:
            self._wake()

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    def _leave(self) -> None:
        self._subscribers -= 1
        if not self._subscribers:
            self._linger_until = self._clock() + self._linger_s


class Subscription(Generic[T]):
    """One reader's place in a fan-out. Close it, or use it with ``with``; it is its own asynchronous iterator."""

    def __init__(self, fanout: Fanout[T], cursor: int, wants: Callable[[T], bool] | None) -> None:
        self._fanout = fanout
        self._cursor = cursor  # the number of the last message that was read or skipped
        self._wants = wants
        self._pending_loss = 0
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A forgotten subscription must not occupy its place for ever. Nobody can be waiting on it: a waiter holds it.
        self._leave()

    def close(self) -> None:
        """Give the place back; a reader that waits gets the end. Idempotent."""
        if self._leave():
            self._fanout._wake()

    def ready(self, max_messages: int = 100) -> list[Message[T]]:
        """The next messages that can be read without waiting, oldest first; perhaps none."""
        found: list[Message[T]] = []
        fanout, wants = self._fanout, self._wants
        while self._open and len(found) < max_messages and self._cursor < fanout._seq:
            seq, slot = fanout._ring.after(self._cursor)
            self._lose(seq - self._cursor - 1)
            self._cursor = seq
            if slot is None:
                self._lose(1)
            elif wants is None or wants(slot[0]):
                found.append(Message(seq, slot[0], self._pending_loss))
                self._pending_loss = 0
        return found

    async def batch(self, max_messages: int = 100, *, timeout_s: float | None = None) -> list[Message[T]]:
        """As ``ready``, but wait for at least one message; empty after ``timeout_s`` and at the end (``ended``)."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not (found := self.ready(max_messages)) and not self.ended:
            left_s = None if deadline is None else deadline - loop.time()
            if left_s is not None and left_s <= 0:
                break
            await self._sleep(loop, left_s)
        return found

    @property
    def ended(self) -> bool:
        """Whether nothing will ever come any more: closed, or the fan-out stopped and all was read."""
        return not self._open or (self._fanout._closed and self._cursor >= self._fanout._seq)

    def __aiter__(self) -> AsyncIterator[Message[T]]:
        return self

    async def __anext__(self) -> Message[T]:
        if found := await self.batch(1):
            return found[0]
        raise StopAsyncIteration

    def _leave(self) -> bool:
        was_open, self._open = self._open, False
        if was_open:
            self._fanout._leave()
        return was_open

    def _lose(self, count: int) -> None:
        self._pending_loss += count
        self._fanout._lost += count

    async def _sleep(self, loop: asyncio.AbstractEventLoop, timeout_s: float | None) -> None:
        sleeper: asyncio.Future[None] = loop.create_future()
        self._fanout._sleepers.append(sleeper)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _finish, sleeper)
        try:
            await sleeper
        finally:
            if timer is not None:
                timer.cancel()
            if sleeper in self._fanout._sleepers:  # woken by the timer or cancelled, not by a message
                self._fanout._sleepers.remove(sleeper)


def _finish(sleeper: asyncio.Future[Any]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class _Ring(Generic[T]):
    """The messages ``first`` … ``last`` without a hole: one slot each, None for an item too large to be kept."""

    def __init__(self, max_entries: int, max_bytes: int | None, sizeof: Callable[[T], int] | None) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.sizeof = sizeof
        self.bytes = 0
        self.recorded = self.evictions = self.oversize = 0
        self._slots: list[tuple[T, int] | None] = [None] * max_entries  # message n is at n % max_entries
        self._first, self._last = 1, 0

    def resume(self, seq: int) -> None:
        """Before recording begins again after a pause: the next message will be the one after ``seq``."""
        if not len(self):
            self._first, self._last = seq + 1, seq

    def put(self, seq: int, item: T) -> None:
        size = 0 if self.sizeof is None else self.sizeof(item)
        fits = self.max_bytes is None or size <= self.max_bytes
        if len(self) >= self.max_entries:
            self._evict()
        while fits and self.max_bytes is not None and self.bytes + size > self.max_bytes:
            self._evict()
        self._last = seq
        if fits:
            self._slots[seq % self.max_entries] = (item, size)
            self.bytes += size
            self.recorded += 1
        else:
            self.oversize += 1

    def after(self, seq: int) -> tuple[int, tuple[T, int] | None]:
        """The number and the slot of the first message after ``seq`` that was not pushed out.

        To be asked only for a ``seq`` below the last; when nothing is held, the last number and None.
        """
        found = max(seq + 1, self._first)
        return (found, self._slots[found % self.max_entries]) if found <= self._last else (self._last, None)

    def clear(self) -> None:
        self._slots = [None] * self.max_entries
        self.bytes = 0
        self._first = self._last + 1

    def __len__(self) -> int:
        return self._last - self._first + 1

    def _evict(self) -> None:
        index = self._first % self.max_entries
        slot, self._slots[index] = self._slots[index], None
        self._first += 1
        if slot is not None:
            self.bytes -= slot[1]
            self.evictions += 1
