"""What every robot driver must keep: asked of the simulated fleet, and of a driver over a fleet manager's REST calls.

The fleet manager of the second is the simulated fleet behind HTTP, with no more than the example's four calls.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flatwater.engine import Engine, EngineOptions
from flatwater.engine.driver import OrderState, RobotDriver, RobotFree, RobotOrder
from flatwater.engine.fleet import Failure, Fleet
from flatwater.errors import ConflictError, FlatwaterError
from flatwater.store.state import State
from flatwater.store.store import Store
from tests.engine.fleet.hall import Ear, fleet, order, request
from tests.engine.plan import b, plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "rest_robots.py"
OUTSIDE = "outside"
"""The run and block by which the fleet manager itself holds all its robots."""


def example() -> Any:
    spec = importlib.util.spec_from_file_location("rest_robots", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = {"ACCEPTED": "queued", "RUNNING": "running", "SUCCEEDED": "done", "FAILED": "failed", "CANCELED": "stopped"}


class Manager:
    """A fleet manager: its robots are its own, whoever sends orders."""

    def __init__(self, robots: Fleet) -> None:
        self.fleet = robots

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/robots", self.robots)
        app.router.add_post("/orders", self.accept)
        app.router.add_get("/orders/{id}", self.look)
        app.router.add_delete("/orders/{id}", self.stop)
        return app

    async def robots(self, _: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "id": robot.id, "idle": robot.order_id is None, "battery": robot.battery,
                    "station": robot.station, "order": robot.order_id,
                }
                for robot in await self.fleet.robots()
            ]
        )  # fmt: skip

    async def accept(self, asked: web.Request) -> web.Response:
        body = await asked.json()
        try:
            await self.fleet.send(
                RobotOrder(
                    id=body["id"], robot_id=body["robot"], run_id=OUTSIDE, path=OUTSIDE,
                    target=body["target"], operation=body["operation"], goods_id=body["goods"],
                )
            )  # fmt: skip
        except ConflictError as error:
            return web.json_response(str(error), status=409)
        except FlatwaterError as error:
            return web.json_response(str(error), status=400)
        return web.json_response({}, status=201)

    async def look(self, asked: web.Request) -> web.Response:
        status = await self.fleet.lookup(asked.match_info["id"])
        if status is None:
            return web.json_response({}, status=404)
        return web.json_response(
            {
                "robot": status.robot_id, "state": NAMES[status.state],
                "container": status.result.get("containerName"), "error": status.error,
            }
        )  # fmt: skip

    async def stop(self, asked: web.Request) -> web.Response:
        await self.fleet.cancel(asked.match_info["id"])
        return web.json_response({})


@asynccontextmanager
async def rest_driver(robots: Fleet) -> AsyncIterator[RobotDriver]:
    for robot in await robots.robots():
        await robots.select(request(OUTSIDE, robot.id, vehicles=(robot.id,)))
    async with (
        TestServer(Manager(robots).application()) as server,
        example().RestRobots(str(server.make_url("")), poll_s=0.02) as driver,
    ):
        yield driver


@asynccontextmanager
async def own_driver(robots: Fleet) -> AsyncIterator[RobotDriver]:
    yield robots


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(f"sqlite:///{tmp_path}/flatwater.db") as store:
        yield store


@pytest.fixture(params=[own_driver, rest_driver], ids=["fleet", "rest"])
async def driver(request: pytest.FixtureRequest, store: Store) -> AsyncIterator[RobotDriver]:
    rule = Failure(operation="Break", probability=1.0)
    async with fleet(store, failures=(rule,)) as robots, request.param(robots) as driver:
        yield driver


async def test_a_robot_has_one_holder(driver: RobotDriver):
    assert isinstance(driver, RobotDriver)
    first, second = await asyncio.gather(driver.select(request("a")), driver.select(request("b")))
    assert {first, second} == {"R1", "R2"}
    assert await driver.select(request("c")) is None
    assert await driver.select(request("a")) == first
    assert {robot.id: robot.run_id for robot in await driver.robots()} == {first: "a", second: "b"}
    ear = Ear(driver)
    assert first is not None
    await driver.release(first, "c", "-1/1")
    assert await driver.select(request("c")) is None
    await driver.release(first, "a", "-1/1")
    await ear.until(lambda event: event == RobotFree(first))
    assert await driver.select(request("c")) == first
    ear.close()


async def test_a_named_robot_is_given_back_to_who_had_it(driver: RobotDriver):
    assert await driver.select(request("a", robot="R2")) == "R2"
    assert await driver.select(request("b")) == "R1"


async def test_an_order_is_done_once_and_remembered(driver: RobotDriver):
    await driver.select(request("run", vehicles=("R1",)))
    ear = Ear(driver)
    load = order(target="shelf", operation="ForkLoad", goods_id="P")
    assert await driver.lookup(load.id) is None
    await driver.send(load)
    status = await driver.lookup(load.id)
    assert status is not None
    assert status.state in (OrderState.ACCEPTED, OrderState.RUNNING, OrderState.SUCCEEDED)
    ended = await ear.ended(load.id)
    assert (ended.ok, ended.result) == (True, {"containerName": "P"})
    status = await driver.lookup(load.id)
    assert status is not None
    assert (status.state, status.result, status.robot_id) == (OrderState.SUCCEEDED, {"containerName": "P"}, "R1")
    with pytest.raises(ConflictError):
        await driver.send(load)


async def test_failures_cancels_and_refusals(driver: RobotDriver):
    await driver.select(request("run", vehicles=("R1",)))
    ear = Ear(driver)
    broken, stopped, lost = order(operation="Break"), order(operation="Wait"), order(target="nowhere")
    await driver.send(broken)
    await driver.send(stopped)
    await driver.cancel(stopped.id)
    await driver.cancel("unknown")
    assert "failed" in ((await ear.ended(broken.id)).error or "")
    assert not (await ear.ended(stopped.id)).ok
    status = await driver.lookup(stopped.id)
    assert status is not None
    assert status.state is OrderState.CANCELED
    with pytest.raises(FlatwaterError):
        await driver.send(lost)
    assert await driver.lookup(lost.id) is None


@pytest.mark.parametrize("over", [own_driver, rest_driver], ids=["fleet", "rest"])
async def test_runs_go_on_with_their_robots_over_a_restart(store: Store, over: Any):
    """Also when the driver has forgotten who held which robot."""
    drive = [b(number, "CAgvOperationBp", {"targetSiteLabel": place}) for number, place in ((2, "out"), (3, "in"))]
    options = EngineOptions(park_after_s=0.05)
    async with fleet(store, speed=1, metres_per_s=40) as robots:
        async with over(robots) as driver, Engine(store, driver=driver, options=options) as engine:
            await engine.save(plan("drive", b(1, "CSelectAgvBp", default=drive)), "drive")
            runs = [await engine.submit("drive") for _ in range(3)]
            async with asyncio.timeout(60):
                while len({robot.run_id for robot in await driver.robots() if robot.order_id is not None}) < 2:
                    await asyncio.sleep(0.01)
        async with over(robots) as driver, Engine(store, driver=driver, options=options) as engine:
            for run in runs:
                outcome = await engine.result(run, 60)
                assert outcome.state == State.SUCCEEDED, outcome.error
        statistics = robots.statistics()
        assert (statistics.accepted, statistics.violations) == (6, 0)
