"""The blocks of the plant. Each tells the execution log when it begins; some call the outside."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from flatwater.engine.block import Registry, block
from flatwater.engine.blocks import builtin
from tests.live.inferiors.outside import Log, Outside

CARRY_S = 0.7
"""How long the outside takes for an order."""


def kinds(log: Log, outside: Outside) -> Registry:  # noqa: C901 - one small function after another
    """Built-in blocks and those of the plant."""

    def tell(call: Any, *words: object) -> None:
        log.add("did", call.run_id, call.path, call.attempt, *words)

    @block("Note", family="plant")
    async def note(value: Any = None, *, call: Any) -> Any:
        tell(call)
        return {"value": value}

    @block("Work", family="plant")
    async def work(seconds: float = 0.01, *, call: Any) -> None:
        tell(call)
        await asyncio.sleep(seconds)

    @block("Compute", family="plant")
    def compute(number: int, *, call: Any) -> int:
        tell(call)
        time.sleep(0.005)
        return number * number

    @block("Add", family="plant")
    async def add(name: str, number: int, *, call: Any) -> Any:
        tell(call)
        call.set_variable(name, call.variables.get(name, 0) + number)

    @block("Fail", family="plant")
    async def fail(times: int, *, call: Any) -> Any:
        tell(call)
        if call.attempt <= times:
            raise ValueError(f"attempt {call.attempt} fails")
        return {"attempt": call.attempt}

    @block("FailFirst", family="plant")
    async def fail_first(*, call: Any) -> None:
        tell(call)
        if not call.retried:
            raise ValueError("the first attempt of the run fails")

    @block("Occupy", family="plant")
    async def occupy(site: str, seconds: float = 0.12, *, call: Any) -> None:
        log.add("in", call.run_id, site)
        await asyncio.sleep(seconds)
        log.add("out", call.run_id, site)

    @block("Carry", family="plant", recovery="reattach")
    async def carry(*, call: Any) -> Any:
        """As a robot: an order that has arrived is waited for, not sent again."""
        at = outside.sent_at(call.order_id)
        if at is None:
            outside.send(call.order_id, call.run_id, call.path)
            at = time.time()
        await asyncio.sleep(max(0.0, at + CARRY_S - time.time()))
        return {"carried": True}

    @block("Press", family="plant", recovery="operator")
    async def press(*, call: Any) -> Any:
        """A machine that cannot be asked what it did."""
        outside.send(call.order_id, call.run_id, call.path)
        await asyncio.sleep(0.02)
        return {"pressed": True}

    registry = builtin()
    for function in (note, work, compute, add, fail, fail_first, occupy, carry, press):
        registry.register(function)
    return registry
