"""Bringing a plant to rest without leaving a pallet between two books; also for the tests that kill its process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from sqlalchemy import select

from flatwater.engine import Engine
from flatwater.errors import ConflictError
from flatwater.store import schema
from flatwater.store import trigger as triggers
from flatwater.store import waiter as waiters
from flatwater.store.dialect import members
from flatwater.store.state import ENDED, RUN_STATES, State
from flatwater.store.tx import Tx

OPEN = [state.value for state in RUN_STATES if state not in ENDED]


async def wind_down(engine: Engine, timeout_s: float = 60.0) -> None:
    """Let runs that have a robot go on to their end, hold those that merely wait, then cancel these.

    Whoever calls it has stopped submitting; triggers are switched off here.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await engine.store.writer.call(_switch_off)
            await _wind_down(engine)
    except TimeoutError:
        driver = engine.services.driver
        robots = await driver.robots() if driver is not None else []
        raise AssertionError(f"not at rest: {await engine.store.read(_open)}, {robots}") from None
    await engine.store.writer.flush()  # the robots' book is a moment behind them


async def _wind_down(engine: Engine) -> None:
    while await _hold_idle(engine):
        await asyncio.sleep(0.05)
    for run_id, _, _ in await engine.store.read(_open):
        with contextlib.suppress(ConflictError):
            await engine.cancel(run_id)
    while await engine.store.read(_open) or not await _robots_free(engine):
        await asyncio.sleep(0.02)


def _switch_off(tx: Tx) -> None:
    for trigger in triggers.page(tx):
        triggers.save(tx, msgspec.structs.replace(trigger, enabled=False))


async def _hold_idle(engine: Engine) -> bool:
    """Pause every run that waits and moves nothing; whether others are left.

    A paused run whose wait is over is not at rest: what it waited for has come (a robot that others need, the report of
    a pallet), and the record of that is its next step.
    """
    busy = False
    for run_id, state, moving in await engine.store.read(_open):
        if state == State.PAUSED and moving is False:
            continue
        busy = True
        with contextlib.suppress(ConflictError):
            if state == State.PAUSED:
                await engine.resume(run_id)
            elif moving is False:
                await engine.pause(run_id)
    return busy


def _open(tx: Tx) -> list[tuple[str, str, bool | None]]:
    """Open runs with whether something moves for them: None when they do not wait at all."""
    table = schema.run
    query = select(table.c.id, table.c.state, table.c.parent_id).where(members(table.c.state, "states"))
    rows = tx.all(query, states=OPEN)
    waiting = waiters.load(tx, [row[0] for row in rows])
    return [(id, state, _moving(waiting[id], parent)) for id, state, parent in rows]


def _moving(rows: list[Any], parent: str | None) -> bool | None:
    if parent is not None:
        return True
    if not rows:
        return None
    return any(_goes_on(row) for row in rows)


def _goes_on(row: Any) -> bool:
    """It has a robot, a child or an order; or what it waited for was granted while it was being held, robots too."""
    granted = row.granted is not None and not (row.due_at is not None and row.due_at < 0)  # not one that is taken
    return granted or row.kind in ("hold", "child") or (row.kind == "robot" and row.key != "select")


async def _robots_free(engine: Engine) -> bool:
    driver = engine.services.driver
    assert driver is not None
    return all(robot.run_id is None and not robot.order_run_id for robot in await driver.robots())
