"""A real engine on a real SQLite file, given functions and databases, and short ways to run definitions on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import pytest

from flatwater.engine.engine import Engine
from flatwater.engine.option import EngineOptions
from flatwater.store import Store
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store.site import Site, SiteSpec
from flatwater.store.state import State
from tests.engine.conftest import Trace, kinds
from tests.engine.plan import plan

Open = Callable[..., AbstractAsyncContextManager["Bench"]]


class Bench:
    """An engine, and what tests do with it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = engine.store

    async def submit(self, *blocks: Any, inputs: Mapping[str, Any] | None = None, **extra: Any) -> str:
        wish = {key: extra.pop(key) for key in ("retry", "timeout_s", "priority", "idempotency_key") if key in extra}
        declared = [(name, "Any") for name in inputs or {}]
        saved = await self.engine.save(plan(extra.pop("label", "test"), *blocks, inputs=declared, **extra))
        return await self.engine.submit(saved.id, inputs, **wish)

    async def run(self, *blocks: Any, **extra: Any) -> Any:
        """The outcome of a run of these blocks."""
        return await self.engine.result(await self.submit(*blocks, **extra), 60)

    async def outputs(self, *blocks: Any, **extra: Any) -> dict[str, Any]:
        """The outputs of a run that must succeed."""
        result = await self.run(*blocks, **extra)
        assert result.state == State.SUCCEEDED, result.error
        return dict(result.outputs)

    async def error(self, *blocks: Any, **extra: Any) -> str:
        """The message of a run that must fail."""
        result = await self.run(*blocks, **extra)
        assert result.state == State.FAILED, result
        return str(result.error)

    async def row(self, run_id: str) -> Any:
        return await self.store.read(runs.get, run_id)

    async def until(self, run_id: str, *states: State, timeout_s: float = 60.0) -> Any:
        """The run's row once it is in one of these states."""

        async def there() -> Any:
            row = await self.row(run_id)
            return row if row.state in states else None

        return await eventually(there, timeout_s)

    async def waits_for(self, *kinds: str) -> None:
        """Until the waiter rows of all runs are of these kinds."""

        async def there() -> bool:
            return sorted(row[2] for row in await self.waiters()) == sorted(kinds)

        await eventually(there)

    async def save_sites(self, *specs: SiteSpec) -> None:
        self.engine.scheduler.granted(await self.store.writer.call(sites.save, specs, time()))

    async def site(self, site_id: str) -> Site:
        return await self.store.read(sites.get, site_id)

    async def waiters(self) -> list[tuple[Any, ...]]:
        return await self.store.read(_waiters)


async def eventually(look: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """What ``look`` (a coroutine function) gives once it gives something; fails after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while not (found := await look()):
            await asyncio.sleep(0.01)
    return found


def _waiters(tx: Any) -> list[tuple[Any, ...]]:
    cursor = tx.connection.execute("SELECT run_id, path, kind, reason, granted FROM waiter")
    return [tuple(row) for row in cursor.fetchall()]


def group(name: str, *ids: str, **fields: Any) -> list[SiteSpec]:
    return [SiteSpec(id=site_id, group_name=name, **fields) for site_id in ids]


@pytest.fixture
def open_bench(tmp_path: Path, trace: Trace) -> Open:
    """Open an engine on the test's database; may be used again for a restart."""

    @asynccontextmanager
    async def open_(
        functions: Mapping[str, Any] | None = None,
        databases: Mapping[str, str] | None = None,
        modbus: Mapping[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[Bench]:
        async with (
            Store.open(f"sqlite:///{tmp_path}/flatwater.db") as store,
            Engine(
                store,
                registry=kinds(trace),
                functions=functions,
                databases=databases,
                modbus=modbus,
                options=EngineOptions(**options),
            ) as engine,
        ):
            yield Bench(engine)

    return open_


@pytest.fixture
async def bench(open_bench: Open) -> AsyncIterator[Bench]:
    async with open_bench(park_after_s=0.05) as bench:
        yield bench
