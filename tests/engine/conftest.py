"""A real engine on a real SQLite file, with a few blocks to run on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flatwater.engine.block import Registry, block
from flatwater.engine.blocks import builtin
from flatwater.engine.engine import Engine
from flatwater.engine.option import EngineOptions
from flatwater.store import Store

Open = Callable[..., AbstractAsyncContextManager[Engine]]


class Trace:
    """What the test's blocks did, in order."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.gate = asyncio.Event()
        self.running = 0
        self.peak = 0


def kinds(trace: Trace) -> Registry:
    registry = builtin()

    @block("Note", family="test")
    async def note(value: Any = None, *, call: Any) -> Any:
        trace.calls.append((call.path, value))
        return {"value": value}

    @block("Fail", family="test")
    async def fail(times: int = 1_000_000, message: str = "broken", *, call: Any) -> Any:
        trace.calls.append((call.path, call.attempt))
        if call.attempt <= times:
            raise ValueError(message)
        return {"attempt": call.attempt}

    @block("Work", family="test")
    async def work(seconds: float = 0.05) -> None:
        trace.running += 1
        trace.peak = max(trace.peak, trace.running)
        try:
            await asyncio.sleep(seconds)
        finally:
            trace.running -= 1

    @block("Gate", family="test")
    async def gate(*, call: Any) -> None:
        trace.calls.append((call.path, "entered"))
        await trace.gate.wait()
        trace.calls.append((call.path, "left"))

    @block("Await", family="test")
    async def await_(event: str, timeout_s: float | None = None, *, call: Any) -> Any:
        return {"data": await call.wait("event", event, reason=f"the event {event}", timeout_s=timeout_s)}

    @block("Outside", family="test", recovery="operator")
    async def outside(*, call: Any) -> Any:
        trace.calls.append((call.path, call.order_id))
        await trace.gate.wait()
        return {"order": call.order_id}

    @block("Var", family="test")
    async def var(name: str, value: Any = None, *, call: Any) -> None:
        trace.calls.append((call.path, name))
        call.set_variable(name, value)

    @block("Double", family="test")
    def double(number: int) -> int:
        return 2 * number

    for function in (note, fail, work, gate, await_, outside, var, double):
        registry.register(function)
    return registry


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.fixture
def open_engine(tmp_path: Path, trace: Trace) -> Open:
    """Open an engine on the test's database; may be used again for a restart."""

    @asynccontextmanager
    async def open_(registry: Registry | None = None, **options: Any) -> AsyncIterator[Engine]:
        async with (
            Store.open(f"sqlite:///{tmp_path}/flatwater.db") as store,
            Engine(store, registry=registry or kinds(trace), options=EngineOptions(**options)) as engine,
        ):
            yield engine

    return open_


@pytest.fixture
async def engine(open_engine: Open) -> AsyncIterator[Engine]:
    async with open_engine() as engine:
        yield engine
