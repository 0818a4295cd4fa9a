"""A process that dies, without a process: from a chosen batch on nothing that an engine writes is stored.

``Crash.at(n)`` takes the engine's runs away at the beginning of its n-th batch, as another worker does that sees it
dead: its runs are made ready and its row is removed, so that batch and all later ones are refused. What the engine does
after that is a ghost's doing; blocks that ask ``crash.dead`` leave no trace of it. What is stored is exactly what
kill -9 would have left at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

from flatwater.engine.block import Registry
from flatwater.engine.engine import Engine
from flatwater.engine.option import EngineOptions
from flatwater.store import Store, StoreOptions, worker
from flatwater.store.dialect import Connection
from flatwater.store.tx import Tx

LONG_AFTER_S = 1e9


class Crash:
    """When an engine dies, and whether it has."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begin = store.dialect.begin
        self._at: int | None = None
        self.batches = 0
        self.dead = False
        store.dialect.begin = self._count  # type: ignore[method-assign]

    def at(self, batch: int) -> None:
        """Die at the beginning of the ``batch``-th batch from now."""
        self._at = self.batches + batch

    async def now(self) -> None:
        """Die with all that is on its way to the disk."""
        self.at(1)
        self._store.writer.put()
        await self.happened()

    async def happened(self, timeout_s: float = 90.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not self.dead:
                await asyncio.sleep(0.002)

    def _count(self, connection: Connection) -> None:
        """In the writer's thread, before each batch."""
        self.batches += 1
        if self._at is not None and self.batches >= self._at and not self.dead:
            self._die()
        self._begin(connection)

    def _die(self) -> None:
        dialect = self._store.dialect
        other = dialect.connect()
        try:
            self._begin(other)
            worker.take_over(Tx(dialect, other), None, time() + LONG_AFTER_S, 1.0)
            self.dead = True
            dialect.commit(other)
        finally:
            dialect.close(other)


@asynccontextmanager
async def mortal(
    folder: Path, registry: Callable[[Crash], Registry], **options: Any
) -> AsyncIterator[tuple[Engine, Crash]]:
    """An engine on the database in ``folder`` that may die; ``registry`` makes its blocks."""
    async with Store.open(f"sqlite:///{folder}/flatwater.db", StoreOptions(renew_s=0.0)) as store:
        crash = Crash(store)
        async with Engine(store, registry=registry(crash), options=EngineOptions(**options)) as engine:
            engine._join_again = _stay_dead  # type: ignore[method-assign]  # a dead process does not come back
            yield engine, crash
            if crash.dead:
                await engine.scheduler.leave_all()


async def _stay_dead() -> None:
    return None
