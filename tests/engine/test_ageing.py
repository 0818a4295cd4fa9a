"""Priority and age together: higher is sooner, but nothing waits for ever."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

import pytest

from flatwater.engine.engine import Engine
from flatwater.store.state import State
from tests.engine.conftest import Open, Trace
from tests.engine.plan import b, plan

SHORT_S = 0.02
LONG_S = 1e6


async def prepare(engine: Engine) -> None:
    await engine.save(plan("note", b(1, "Note", {"value": "=taskInputs.n"}), inputs=[("n", "Long")]))
    await engine.save(plan("gate", b(1, "Gate")))


async def occupied(engine: Engine, trace: Trace) -> str:
    """The only place in memory is taken until the gate opens, so what is submitted meanwhile queues."""
    run_id = await engine.submit("gate")
    async with asyncio.timeout(90):
        while not trace.calls:
            await asyncio.sleep(0.005)
    trace.calls.clear()
    return run_id


async def test_seconds_of_waiting_weigh_as_much_as_steps_of_priority(open_engine: Open, trace: Trace) -> None:
    async with open_engine(max_active=1, ageing_s=60.0) as engine:
        await prepare(engine)
        gate = await occupied(engine, trace)
        now = time()
        waiting = [(1, 0, 130.0), (2, 1, 75.0), (3, 2, 0.0), (4, 2, 20.0), (5, 0, 0.0), (6, -1, 130.0)]
        runs = [
            await engine.submit("note", {"n": n}, priority=priority, due_at=now - waited)
            for n, priority, waited in waiting
        ]
        trace.gate.set()
        for run_id in (gate, *runs):
            assert (await engine.result(run_id, 60)).state == State.SUCCEEDED
    order = [value for path, value in trace.calls if value in range(1, 7)]
    merit = {n: waited + 60.0 * priority for n, priority, waited in waiting}
    assert order == sorted(merit, key=lambda n: -merit[n]) == [4, 2, 1, 3, 6, 5]


@pytest.mark.parametrize(("ageing_s", "starves"), [(SHORT_S, False), (LONG_S, True)])
async def test_what_is_unimportant_gets_its_turn_while_the_important_keeps_coming(
    open_engine: Open, trace: Trace, ageing_s: float, starves: bool
) -> None:
    """There is always an important run in the queue; the unimportant one is overtaken only by those before its time."""
    async with open_engine(max_active=1, ageing_s=ageing_s) as engine:
        await prepare(engine)
        gate = await occupied(engine, trace)
        low = await engine.submit("note", {"n": 0}, priority=0)
        queue: list[Any] = [await engine.submit("note", {"n": n}, priority=10) for n in range(1, 6)]
        trace.gate.set()
        until = time() + (1.0 if starves else 60.0)
        while (0 not in values(trace)) and time() < until:
            queue.append(await engine.submit("note", {"n": 1 + len(queue)}, priority=10))
            await engine.result(queue.pop(0), 60)
        before = values(trace)
        assert (0 not in before) is starves, f"after {len(before)} important runs"
        for run_id in (gate, low, *queue):
            assert (await engine.result(run_id, 60)).state == State.SUCCEEDED


def values(trace: Trace) -> list[int]:
    return [value for path, value in trace.calls if isinstance(value, int)]
