"""Single flight: of the requests that miss the same key at the same time, one asks the origin and the others wait.

The one that asks leads. Its end decides what becomes of those that wait: they look into the cache again when it has
stored a response; they ask by themselves when it could not be stored; and when the leader was cancelled, the one that
has waited longest leads on. So a client that leaves takes nothing from the others, and no fetch outlives its request.

::

    lead = await flights.join(key)
    if lead is None: …                    # an answer is stored: look up again; in vain, go on with flights.alone()
    with lead:
        …                                 # ask the origin
        lead.release()                    # as soon as the head tells that the response will not be stored
        …                                 # stream the body
        lead.done()                       # it is stored
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from flatwater.bounded import Ledger, Usage, check_bound

_Waiters = deque["asyncio.Future[Lead | None]"]


class FlightStatistics(Usage, frozen=True, kw_only=True):
    """``size`` keys are asked for, of ``bound``; ``waiting`` requests wait for them, of ``max_waiters``.

    Since the start: ``led`` requests asked for others too, ``merged`` waited and found an answer, ``handed`` went on
    for a leader that was cancelled, ``released`` had to ask by themselves after waiting, ``timeouts`` of them because
    that took too long; ``refused`` asked at once because a bound was reached.
    """

    waiting: int
    max_waiters: int
    led: int
    merged: int
    handed: int
    released: int
    timeouts: int
    refused: int


class Lead:
    """The duty to ask for a key. Exactly one of ``done``, ``release`` and ``abandon`` counts, the first.

    Leaving the ``with`` block without one of them releases, or abandons when a cancellation is the reason.
    """

    __slots__ = ("_flights", "_waiters", "key")

    def __init__(self, flights: Flights | None, key: bytes, waiters: _Waiters | None) -> None:
        self._flights = flights
        self.key = key
        self._waiters = waiters

    def done(self) -> None:
        """The response is stored: those that wait look it up."""
        if (flights := self._settle()) is not None and self._waiters is not None:
            flights._wake(self._waiters, merged=True)

    def release(self) -> None:
        """The response will not be stored: those that wait ask by themselves."""
        if (flights := self._settle()) is not None and self._waiters is not None:
            flights._wake(self._waiters, merged=False)

    def abandon(self) -> None:
        """This request has ended before its answer: whoever has waited longest leads on."""
        if self._flights is None or self._waiters is None:
            return
        flights, self._flights = self._flights, None
        flights._hand_on(self.key, self._waiters)

    @property
    def waiting(self) -> int:
        """How many wait for this."""
        return len(self._waiters) if self._flights is not None and self._waiters is not None else 0

    def _settle(self) -> Flights | None:
        flights, self._flights = self._flights, None
        if flights is not None:
            del flights._waiting[self.key]
        return flights

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.abandon()
        else:
            self.release()


class Flights:
    """Who asks for which key, and who waits.

    Bounds: ``max_keys`` led at a time, ``max_waiters`` over all keys, ``max_wait_s`` for each of them; who finds one
    reached asks by itself.
    """

    kind = "single flight"

    def __init__(
        self,
        name: str = "gateway flights",
        *,
        ledger: Ledger,
        max_keys: int = 10_000,
        max_waiters: int = 10_000,
        max_wait_s: float = 5.0,
    ) -> None:
        check_bound("max_keys", max_keys, where=name)
        check_bound("max_waiters", max_waiters, where=name)
        check_bound("max_wait_s", max_wait_s, where=name)
        self.name = name
        self._max_keys = max_keys
        self._max_waiters = max_waiters
        self._max_wait_s = max_wait_s
        self._waiting: dict[bytes, _Waiters] = {}
        self._count = 0
        self._led = self._merged = self._handed = self._released = self._timeouts = self._refused = 0
        ledger.register(self)

    def lead(self, key: bytes) -> Lead | None:
        """The lead if nobody asks for ``key`` yet; None otherwise. For background work, which need not wait."""
        if key in self._waiting or len(self._waiting) >= self._max_keys:
            return None
        self._led += 1
        waiters: _Waiters = deque()
        self._waiting[key] = waiters
        return Lead(self, key, waiters)

    def alone(self) -> Lead:
        """A lead that nobody follows."""
        return Lead(None, b"", None)

    async def join(self, key: bytes) -> Lead | None:
        """The duty to ask for ``key``; or None, after a wait, when another request's response has been stored."""
        waiters = self._waiting.get(key)
        if waiters is None:
            return self.lead(key) or self._refuse()
        if self._count >= self._max_waiters:
            return self._refuse()
        future: asyncio.Future[Lead | None] = asyncio.get_running_loop().create_future()
        waiters.append(future)
        self._count += 1
        try:
            async with asyncio.timeout(self._max_wait_s):
                return await future
        except TimeoutError:
            self._timeouts += 1
            return self._too_late(future)
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and (lead := future.result()) is not None:
                lead.abandon()  # it was handed to us, too late
            raise
        finally:
            self._count -= 1
            if not future.done() or future.cancelled():
                self._leave(waiters, future)

    def statistics(self) -> FlightStatistics:
        return FlightStatistics(
            size=len(self._waiting),
            bound=self._max_keys,
            waiting=self._count,
            max_waiters=self._max_waiters,
            led=self._led,
            merged=self._merged,
            handed=self._handed,
            released=self._released,
            timeouts=self._timeouts,
            refused=self._refused,
        )

    def __len__(self) -> int:
        return len(self._waiting)

    def _refuse(self) -> Lead:
        self._refused += 1
        return self.alone()

    def _too_late(self, future: asyncio.Future[Lead | None]) -> Lead | None:
        """The time was up; perhaps in the very turn in which the answer came."""
        if future.done() and not future.cancelled():
            return future.result()
        self._released += 1
        return self.alone()

    def _leave(self, waiters: _Waiters, future: asyncio.Future[Lead | None]) -> None:
        try:
            waiters.remove(future)
        except ValueError:  # whoever went through the waiters has met it already
            return

    def _wake(self, waiters: _Waiters, *, merged: bool) -> None:
        while waiters:
            future = waiters.popleft()
            if not future.done():
                self._merged += merged
                self._released += not merged
                future.set_result(None if merged else self.alone())

    def _hand_on(self, key: bytes, waiters: _Waiters) -> None:
        while waiters:
            future = waiters.popleft()
            if not future.done():
                self._handed += 1
                future.set_result(Lead(self, key, waiters))
                return
        del self._waiting[key]
