"""Whatever is asked of the fleet in whatever order, with restarts in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flatwater.engine.driver import OrderEnded
from flatwater.engine.fleet import Failure, Fleet
from flatwater.errors import FlatwaterError
from flatwater.store.store import Store
from tests.engine.fleet.hall import Ear, fleet, order, request

runs = st.sampled_from(["run-1", "run-2", "run-3"])
robots = st.sampled_from(["R1", "R2"])
numbers = st.integers(0, 2)
steps = st.one_of(
    st.tuples(st.just("select"), runs, st.lists(robots, max_size=1)),
    st.tuples(st.just("release"), runs, robots),
    st.tuples(st.just("send"), st.integers(0, 3), numbers, st.sampled_from(["in", "shelf", "out", "nowhere", None])),
    st.tuples(st.just("cancel"), numbers),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01])),
    st.tuples(st.just("restart")),
)


class World:
    """The fleet beside what must be true of it: who holds which robot, and which orders it has accepted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.held: dict[str, str] = {}  # robot by run
        self.accepted: set[str] = set()
        self.ended: Counter[str] = Counter()
        self.fleet: Fleet
        self.ear: Ear

    async def open(self) -> None:
        rules = (Failure(operation="Wait", probability=0.5),)
        self.fleet = await fleet(self.store, failures=rules, operation_s=0.5, metres_per_s=20).__aenter__()
        self.ear = Ear(self.fleet)

    async def close(self) -> None:
        await self.fleet.__aexit__(None, None, None)
        self.ended.update(event.order_id for event in self.ear.events if isinstance(event, OrderEnded))

    async def do(self, what: str, *args: Any) -> None:
        await getattr(self, what)(*args)
        owners = {robot.id: robot.run_id for robot in await self.fleet.robots() if robot.run_id is not None}
        assert owners == {robot: run for run, robot in self.held.items()}

    async def select(self, run: str, vehicles: list[str]) -> None:
        robot = await self.fleet.select(request(run, vehicles=tuple(vehicles)))
        if run in self.held:
            assert robot == self.held[run]
        elif robot is not None:
            assert robot not in self.held.values()
            assert not vehicles or robot in vehicles
            self.held[run] = robot

    async def release(self, run: str, robot: str) -> None:
        await self.fleet.release(robot, run, "-1/1")
        if self.held.get(run) == robot:
            del self.held[run]

    async def send(self, pick: int, number: int, target: str | None) -> None:
        """By one who holds a robot, or by one who holds none."""
        run, robot = [*self.held.items(), ("run-9", "R1")][pick % (len(self.held) + 1)]
        new = order(robot, run, id=f"order-{number}", target=target, operation="Wait")
        try:
            await self.fleet.send(new)
        except FlatwaterError:
            return
        assert new.id not in self.accepted
        assert self.held.get(run) == robot
        self.accepted.add(new.id)

    async def cancel(self, number: int) -> None:
        await self.fleet.cancel(f"order-{number}")

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def settle(self) -> None:
        """Every order that was accepted has come to an end, and was reported once, or was settled at a restart."""
        async with asyncio.timeout(60):
            while self.fleet.statistics().size:
                await asyncio.sleep(0.005)
        await self.close()
        assert set(self.ended) <= self.accepted
        assert all(count == 1 for count in self.ended.values())
        for id in self.accepted:
            status = await self.fleet.lookup(id)
            assert status is not None
            assert status.ended


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=8, max_size=40))
def test_robots_have_one_owner_and_orders_happen_once(commands):
    async def play(folder: str) -> None:
        async with Store.open(f"sqlite:///{Path(folder)}/fleet.db") as store:
            world = World(store)
            await world.open()
            for what, *args in commands:
                await world.do(what, *args)
            await world.settle()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(folder))
