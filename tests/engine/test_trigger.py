"""Triggers by the clock and by events: once for each due time, whatever dies between, and never more than allowed."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from time import time

import pytest

from flatwater.engine.block import Registry
from flatwater.engine.engine import Engine
from flatwater.store import trigger as triggers
from flatwater.store.run import RunFilter, page
from flatwater.store.trigger import Trigger
from flatwater.store.tx import Tx
from tests.engine.conftest import Open, Trace, kinds
from tests.engine.crash import Crash, mortal
from tests.engine.plan import b, plan

HOUR_S = 3600.0


async def runs_of(engine: Engine) -> int:
    return len((await engine.store.read(page, RunFilter(), None, 100)).items)


async def make_due(engine: Engine, definition: str = "tick") -> float:
    """A trigger whose time has just come; it comes again in an hour."""
    await engine.save(plan("tick", b(1, "Note")))
    at = time()
    due = Trigger(id="t", definition_id=definition, kind="interval", spec=str(HOUR_S), next_at=at, max_pending=1000)
    await engine.store.writer.call(triggers.save, due)
    return at


async def until_fired(engine: Engine, crash: Crash | None = None) -> None:
    async with asyncio.timeout(90):
        while crash is None or not crash.dead:
            if ((await engine.store.read(triggers.get, "t")).next_at or 0.0) > time():
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("batch", range(1, 6))
async def test_a_crash_at_any_batch_neither_loses_a_due_time_nor_fires_it_again(tmp_path: Path, batch: int) -> None:
    logging.getLogger("flatwater").setLevel(logging.CRITICAL)  # dying is logged

    def registry(crash: Crash) -> Registry:
        return kinds(Trace())

    try:
        async with mortal(tmp_path, registry) as (engine, crash):
            await make_due(engine)
            crash.at(batch)
            await until_fired(engine, crash)
        async with mortal(tmp_path, registry) as (engine, _):
            await until_fired(engine)
            assert await runs_of(engine) == 1
    finally:
        logging.getLogger("flatwater").setLevel(logging.NOTSET)


async def test_events_at_once_start_no_more_runs_than_allowed(engine: Engine, trace: Trace) -> None:
    saved = await engine.save(plan("gated", b(1, "Gate"), inputs=[("event", "JSONObject")]))
    await engine.triggers.save("door", saved.id, "event", "door", max_pending=2)
    deliveries = await asyncio.gather(*(engine.publish("door", number) for number in range(12)))
    assert sum(len(delivery.started) for delivery in deliveries) == 2
    assert await runs_of(engine) == 2
    trace.gate.set()
    for delivery in deliveries:
        for run_id in delivery.started:
            await engine.result(run_id, 60)
    assert len((await engine.publish("door")).started) == 1, "two have ended"


async def test_a_trigger_that_cannot_fire_holds_up_no_other(
    open_engine: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine() as engine:
        at = await make_due(engine)
        broken = Trigger(id="a", definition_id="tick", kind="cron", spec="0 6 * * * Nowhere/Land", next_at=at - 60)
        await engine.store.writer.call(triggers.save, broken)
        await until_fired(engine)
        async with asyncio.timeout(90):
            while "trigger a cannot fire now" not in caplog.text:
                await asyncio.sleep(0.01)
        assert await runs_of(engine) == 1


def leave_room(tx: Tx, room: bool) -> None:
    """Let the database grow, or let it be full as it is."""
    (used,) = tx.connection.execute("PRAGMA page_count").fetchone()
    tx.connection.execute(f"PRAGMA max_page_count = {1 << 30 if room else used}")


async def test_on_a_full_disk_a_due_time_waits_for_room(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    await engine.save(plan("large", b(1, "Note"), inputs=[("text", "String")]))
    given = {
        "definition_id": "large",
        "kind": "interval",
        "spec": str(HOUR_S),
        "inputs": f'{{"text":"{"x" * 300_000}"}}',
    }
    await engine.store.writer.call(triggers.save, Trigger(id="t", next_at=time() + HOUR_S, **given))
    await engine.store.writer.call(leave_room, False)
    at = time()
    await engine.store.writer.call(_make_due, at)
    async with asyncio.timeout(90):
        while "trigger t cannot fire now" not in caplog.text:
            await asyncio.sleep(0.01)
    assert ((await engine.store.read(triggers.get, "t")).next_at, await runs_of(engine)) == (at, 0)
    await engine.store.writer.call(leave_room, True)
    await until_fired(engine)
    assert await runs_of(engine) == 1


def _make_due(tx: Tx, at: float) -> None:
    tx.connection.execute("UPDATE trigger SET next_at = ?", (at,))


async def test_a_trigger_whose_definition_is_gone_goes_on_by_the_clock(engine: Engine) -> None:
    await make_due(engine, "none")
    await until_fired(engine)
    found = await engine.store.read(triggers.get, "t")
    assert (found.last_run_id, await runs_of(engine)) == (None, 0)
