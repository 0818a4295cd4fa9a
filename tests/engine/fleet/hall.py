"""A tiny map for the fleet's tests: a corridor A – B – C – D, 10 m from one to the next, and a yard E out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from flatwater.engine.driver import DriverEvent, OrderEnded, RobotOrder, SelectRequest
from flatwater.engine.fleet import Fleet, FleetOptions, Node, Plant, RobotSpec
from flatwater.store.ident import new_id
from flatwater.store.store import Store

NODES = [Node("A", 0, 0), Node("B", 10, 0), Node("C", 20, 0), Node("D", 30, 0), Node("E", 99, 99)]
EDGES = [("A", "B"), ("B", "C"), ("C", "D")]
STATIONS = {"in": "A", "shelf": "C", "out": "D", "plug": "B"}
FAST = FleetOptions(speed=100, metres_per_s=10, chargers=("plug",))


def hall() -> Plant:
    return Plant(NODES, EDGES, STATIONS)


def fleet(store: Store, *robots: RobotSpec, **changes: Any) -> Fleet:
    specs = robots or (RobotSpec(id="R1", home="in"), RobotSpec(id="R2", home="out"))
    values = {name: getattr(FAST, name) for name in FleetOptions.__slots__} | changes
    return Fleet(store, hall(), specs, options=FleetOptions(**values))


def request(run_id: str = "run", path: str = "-1/1", **changes: Any) -> SelectRequest:
    return SelectRequest(run_id=run_id, path=path, **changes)


def order(robot_id: str = "R1", run_id: str = "run", **changes: Any) -> RobotOrder:
    return RobotOrder(**{"id": new_id(), "robot_id": robot_id, "run_id": run_id, "path": "-1/1/2", **changes})


class Ear:
    """Hears a driver and lets a test wait for what it says."""

    def __init__(self, driver: Any) -> None:
        self.events: list[DriverEvent] = []
        self._new = asyncio.Event()
        self.close = driver.listen(self._hear)

    def _hear(self, event: DriverEvent) -> None:
        self.events.append(event)
        self._new.set()

    async def until(self, found: Callable[[DriverEvent], bool], timeout_s: float = 60.0) -> DriverEvent:
        async with asyncio.timeout(timeout_s):
            while True:
                for event in self.events:
                    if found(event):
                        return event
                self._new.clear()
                await self._new.wait()

    async def ended(self, order_id: str) -> OrderEnded:
        event = await self.until(lambda event: isinstance(event, OrderEnded) and event.order_id == order_id)
        assert isinstance(event, OrderEnded)
        return event
