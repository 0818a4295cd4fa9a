"""Who awaits the end of which run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from flatwater.errors import ClosedError
from flatwater.store import run as runs
from flatwater.store.run import RunRow
from flatwater.store.state import ENDED, State
from flatwater.store.store import Store


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended: ``state`` is SUCCEEDED, FAILED or CANCELED."""

    id: str
    state: State
    outputs: dict[str, Any]
    error: str | None = None
    error_path: str | None = None


def outcome(row: RunRow) -> Outcome:
    outputs = msgspec.json.decode(row.outputs) if row.outputs else {}
    return Outcome(row.id, State(row.state), outputs, row.error, row.error_path)


class Results:
    """Futures by run id; an entry lives as long as somebody awaits it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._futures: dict[str, list[asyncio.Future[Outcome]]] = {}

    async def wait(self, run_id: str, timeout_s: float | None, first: Callable[[], Awaitable[None]]) -> Outcome:
        """The outcome of a run; ``first`` is awaited once the future is in place."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(run_id, []).append(future)
        try:
            await first()
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            futures = self._futures.get(run_id, [])
            with contextlib.suppress(ValueError):
                futures.remove(future)
            if not futures:
                self._futures.pop(run_id, None)

    def resolve(self, result: Outcome) -> None:
        for future in self._futures.pop(result.id, ()):
            if not future.done():
                future.set_result(result)

    async def look(self, run_id: str) -> None:
        """Resolve what the store says has ended. Raises ``NotFoundError``."""
        row = await self._store.read(runs.get, run_id)
        if row.state in ENDED:
            self.resolve(outcome(row))

    def close(self) -> None:
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(ClosedError("the engine was closed before the run ended"))
        self._futures.clear()

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._futures

    def __iter__(self) -> Any:
        return iter(list(self._futures))

    def __len__(self) -> int:
        return sum(len(futures) for futures in self._futures.values())
