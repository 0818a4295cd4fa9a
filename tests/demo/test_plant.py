"""Small Hall at work, a hundred times faster than life."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flatwater.demo import Demo, attach, hall, world
from flatwater.demo.invariant import check, registries
from flatwater.demo.load import CHARGE_CHECK, KINDS
from flatwater.demo.plant import definitions
from flatwater.engine import Engine, EngineOptions
from flatwater.engine.blocks import builtin
from flatwater.engine.definition import parse
from flatwater.engine.fleet import Failure, Fleet, FleetOptions, RobotSpec
from flatwater.errors import SettingError
from flatwater.settings.model import DemoSettings
from flatwater.store import definition as definition_store
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store.state import State
from flatwater.store.store import Store
from flatwater.store.trigger import page as triggers
from tests.demo.rest import wind_down

SPEED = 100.0
Open = Callable[..., AbstractAsyncContextManager[tuple[Engine, Fleet, Demo]]]


@pytest.fixture
def open_hall(tmp_path: Path) -> Open:
    """Open the plant on the test's database, not yet at work."""

    @asynccontextmanager
    async def open_(robots: Any = None, **changes: Any) -> AsyncIterator[tuple[Engine, Fleet, Demo]]:
        async with Store.open(f"sqlite:///{tmp_path}/hall.db") as store:
            fleet = hall.fleet(store, speed=SPEED)
            if changes or robots:
                values = {name: getattr(fleet.options, name) for name in FleetOptions.__slots__} | changes
                fleet = Fleet(store, hall.plant(), robots or hall.ROBOTS, options=FleetOptions(**values))
            async with fleet, Engine(store, driver=fleet, options=EngineOptions(park_after_s=0.1)) as engine:
                yield engine, fleet, Demo(engine, store, speed=SPEED)

    return open_


@pytest.mark.timeout(180)
async def test_the_plant_works_and_all_stays_true(open_hall: Open):
    """Every kind of work gets done, over a restart, and when all is at rest every pallet is where the books say."""
    done: Counter[str] = Counter()
    for _ in range(2):
        async with open_hall() as (engine, _, demo), demo:
            done = await _work(engine, since=done, all_kinds=not done)
            assert demo.statistics().failures == 0
            assert demo.statistics().size <= demo.statistics().bound
    async with open_hall() as (engine, fleet, _):
        await wind_down(engine)
        assert await check(engine.store, at_rest=True) == []
        assert fleet.statistics().violations == fleet.statistics().taken_off == 0
    gc.collect()  # a context may hang in a cycle of frames; what holds one for good is still seen
    assert registries(engine) == []


async def _work(engine: Engine, since: Counter[str], *, all_kinds: bool) -> Counter[str]:
    """Until every kind of work, or some of any, was done since then."""
    kinds = [*(kind.definition for kind in KINDS), CHARGE_CHECK] if all_kinds else []
    now = since
    async with asyncio.timeout(60):
        while now.total() < since.total() + 5 or not all(now[kind] for kind in kinds):
            await asyncio.sleep(0.25)
            assert await check(engine.store) == []
            now = await engine.store.read(_succeeded)
    return now


def _succeeded(tx: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    page = runs.page(tx, runs.RunFilter(states=(State.SUCCEEDED,)), None, 1000)
    found.update(run.definition_id for run in page.items)
    return found


async def test_installing_twice_changes_nothing(open_hall: Open):
    async with open_hall() as (engine, _, demo):
        await demo.install()
        moved = sites.Change(filled=True, content="mine")
        await engine.store.writer.call(sites.set, "BUF-C-1", moved, 0.0)
        before = await engine.store.read(_installed)
        await demo.install()
        assert await engine.store.read(_installed) == before
        assert len(before[0]) == 41
        assert {version for _, version in before[1]} == {1}
        assert len(await engine.store.read(triggers)) == 3


def _installed(tx: Any) -> Any:
    return sites.page(tx, limit=100), [(row.id, row.version) for row in definition_store.page(tx)]


def test_the_definitions_are_in_the_format_and_the_seven_kinds_are_there():
    found = {name: parse(body, builtin()) for name, body in definitions().items()}
    assert set(found) == {kind.definition for kind in KINDS} | {CHARGE_CHECK, "hall-transport"}
    assert [flow.warnings for flow in found.values()] == [()] * len(found)
    assert found["hall-line-supply"].sub_tasks == {"hall-transport"}
    assert list(found)[-1] == "hall-line-supply"  # after the sub-task that it starts


async def test_a_loading_that_fails_is_tried_once_more(open_hall: Open):
    rule = Failure(operation="ForkLoad", probability=0.5, at="FLOW")
    async with open_hall(failures=(rule,)) as (engine, fleet, demo):
        await demo.install()
        outcomes: Counter[Any] = Counter()
        for _ in range(60):
            run = await engine.submit("hall-ship", {"speed": SPEED})
            outcome = await engine.result(run, 60)
            outcomes[outcome.state, outcome.outputs.get("caught")] += 1
            if outcome.state == State.SUCCEEDED:
                await engine.store.writer.call(_refill, outcome.outputs["site"])
            else:
                assert "ForkLoad at FLOW" in (outcome.error or "")
            assert await check(engine.store) == []
            if outcomes[State.SUCCEEDED, True] and outcomes.total() >= 6:
                break  # one in four is such a run
        assert outcomes[State.SUCCEEDED, True] > 0, outcomes
        assert fleet.statistics().failed >= outcomes[State.SUCCEEDED, True]
        await wind_down(engine)
        assert await check(engine.store, at_rest=True) == []


def _refill(tx: Any, out: str) -> None:
    """The pallet at the exit goes and another comes to the end of the flow lane, on the books of the outside world."""
    cell = next(f"FLOW-{number}" for number in (5, 4, 3, 2, 1) if not sites.get(tx, f"FLOW-{number}").filled)
    for site_id, content, change in ((out, None, {"left": 1}), (cell, "bolts", {"arrived": 1})):
        tally = world.tally_of(sites.get(tx, site_id))
        for name, number in change.items():
            setattr(tally, name, getattr(tally, name) + number)
        attrs = msgspec.json.encode(tally).decode()
        sites.set(tx, site_id, sites.Change(filled=content is not None, content=content, attrs=attrs), 0.0)


async def test_a_low_battery_is_charged(open_hall: Open):
    robot = RobotSpec(id="R1", home="PARK-1", tags=("fork",), battery=0.3)
    async with open_hall((robot,)) as (engine, fleet, demo):
        await demo.install()
        run = await engine.submit(CHARGE_CHECK, {"robot": "R1", "speed": SPEED})
        outcome = await engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
        [info] = await fleet.robots()
        assert info.battery == pytest.approx(0.95, abs=0.02)
        assert info.station in ("CHARGE-1", "CHARGE-2")
        row = await engine.store.read(runs.get, run)
        assert row.state_message == "R1 is charged to 95 %"


async def test_what_the_demo_needs(tmp_path: Path):
    async with Store.open(f"sqlite:///{tmp_path}/x.db") as store, Engine(store) as engine:
        with pytest.raises(SettingError, match="no robots"):
            Demo(engine, store)
    with pytest.raises(SettingError, match="speed"):
        Demo(engine, store, speed=1000)
    parts = attach(DemoSettings(speed=100, seed=3))
    assert parts["driver"](store).options.seed == 3
    assert len(parts["attachments"]) == 1


def test_the_map_leads_everywhere():
    plant = hall.plant()
    assert 34 <= len(plant.nodes) <= 45
    for spec in hall.sites():
        assert plant.distance("PARK-1", plant.locate(spec.id)) < 80
