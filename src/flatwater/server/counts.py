"""How many runs are in which state, asked of the store no oftener than is cheap."""

from __future__ import annotations

import asyncio
import time

import msgspec

from flatwater.store import Store
from flatwater.store import run as runs
from flatwater.store import waiter as waiters
from flatwater.store.state import RUN_STATES, State
from flatwater.store.tx import Tx

MAX_COUNTED = 1_000_000
_SHARE = 20  # counting may take a twentieth of the time
_WAITS = (State.WAITING, State.PAUSED, State.NEEDS_OPERATOR)


class RunCounts(msgspec.Struct, frozen=True):
    """Runs by state, and what blocks wait for by kind; ``capped`` when a state has ``MAX_COUNTED`` or more."""

    by_state: dict[str, int]
    waits: dict[str, int]
    capped: bool

    @property
    def pending(self) -> int:
        return self.by_state[State.QUEUED]

    @property
    def waiting(self) -> int:
        return sum(self.by_state[state] for state in _WAITS)


class Counts:
    """Keeps the last count for ``min_age_s``, longer when counting was slow. Callers at once share one query."""

    def __init__(self, store: Store, *, min_age_s: float = 1.0, max_counted: int = MAX_COUNTED) -> None:
        self._store = store
        self._min_age_s = min_age_s
        self._max_counted = max_counted
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._counts = RunCounts(dict.fromkeys(map(str, RUN_STATES), 0), {}, False)

    async def get(self) -> RunCounts:
        """The counts, at most a little old."""
        async with self._lock:
            if time.monotonic() >= self._until:
                started = time.monotonic()
                found, waits = await self._store.read(_count, self._max_counted)
                now = time.monotonic()
                self._until = now + max(self._min_age_s, _SHARE * (now - started))
                by_state = {str(state): found.get(state, 0) for state in RUN_STATES}
                self._counts = RunCounts(by_state, waits, max(by_state.values()) >= self._max_counted)
            return self._counts


def _count(tx: Tx, most: int) -> tuple[dict[State, int], dict[str, int]]:
    return runs.count(tx, most), waiters.count(tx, most)
