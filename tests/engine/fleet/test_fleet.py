"""The simulated fleet by itself, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import time

import pytest

from flatwater.engine.driver import OrderEnded, OrderState, RobotDriver, RobotFree, RobotState
from flatwater.engine.fleet import Failure, FleetOptions, RobotSpec
from flatwater.errors import ClosedError, ConflictError, LimitError, NotFoundError, SettingError
from flatwater.store import robot as book
from flatwater.store.store import Store
from tests.engine.fleet.hall import Ear, fleet, order, request


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(f"sqlite:///{tmp_path}/fleet.db") as store:
        yield store


async def test_it_is_a_driver(store: Store):
    async with fleet(store) as robots:
        assert isinstance(robots, RobotDriver)


async def test_the_nearest_free_robot_is_held_once(store: Store):
    async with fleet(store) as robots:
        assert await robots.select(request("near-out", key_route=("out", "in"))) == "R2"
        assert await robots.select(request("near-out", key_route=("out", "in"))) == "R2"
        assert await robots.select(request("next", key_route=("out",))) == "R1"
        assert await robots.select(request("late")) is None
        await robots.release("R2", "somebody else", "-1/1")
        assert await robots.select(request("late")) is None
        await robots.release("R2", "near-out", "-1/1")
        assert await robots.select(request("late")) == "R2"


async def test_criteria(store: Store):
    big = RobotSpec(id="big", home="in", tags=("fork", "2t"), groups=("north",))
    small = RobotSpec(id="small", home="in", tags=("fork",), groups=("south",))
    async with fleet(store, big, small) as robots:
        assert await robots.select(request("a", tags=("2t", "crane"))) is None
        assert await robots.select(request("a", groups=("west",))) is None
        assert await robots.select(request("a", vehicles=("small",), tags=("2t",))) is None
        assert await robots.select(request("a", groups=("west", "south"))) == "small"
        assert await robots.select(request("b", vehicles=("big",), tags=("fork", "2t"))) == "big"


async def test_a_load_is_carried_and_takes_its_time(store: Store):
    async with fleet(store) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        load = order(target="shelf", operation="ForkLoad", goods_id="P-7")
        before = time()
        await robots.send(load)
        ended = await ear.ended(load.id)
        assert ended == OrderEnded(load.id, True, {"containerName": "P-7"})
        assert time() - before >= 20 / 10 / 100 + 5 / 100  # 20 m at 10 m/s and 5 s, a hundred times faster
        drop = order(target="out", operation="ForkUnload")
        await robots.send(drop)
        assert (await ear.ended(drop.id)).result == {"containerName": "P-7"}
        info = next(robot for robot in await robots.robots() if robot.id == "R1")
        assert (info.station, info.last_station, info.x, info.carrying) == ("out", "shelf", 30, None)
        assert info.battery is not None
        assert info.battery == pytest.approx(1 - 30 / 4000 - 2 / 2000)
        assert info.run_id == "run"
        ear.close()


async def test_an_order_id_is_accepted_once(store: Store):
    async with fleet(store) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        once = order(target="shelf")
        assert await robots.lookup(once.id) is None
        results = await asyncio.gather(*(robots.send(once) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results].count(type(None)) == 1
        await ear.ended(once.id)
        status = await robots.lookup(once.id)
        assert status is not None
        assert (status.state, status.ended) == (OrderState.SUCCEEDED, True)
        with pytest.raises(ConflictError, match="accepted before"):
            await robots.send(once)
        assert (robots.statistics().violations, robots.statistics().accepted) == (5, 1)


async def test_orders_that_cannot_be(store: Store):
    async with fleet(store, max_queue=2, speed=1) as robots:  # the first order is still under way at the third
        with pytest.raises(ConflictError, match="not held"):
            await robots.send(order())
        await robots.select(request(vehicles=("R1",)))
        for wrong, error in [
            (order(robot_id="R9"), NotFoundError),
            (order(target="shelv"), NotFoundError),
            (order(target="E"), NotFoundError),
            (order(run_id="other"), ConflictError),
        ]:
            with pytest.raises(error):
                await robots.send(wrong)
            assert await robots.lookup(wrong.id) is None
        await robots.send(order(target="out"))
        await robots.send(order(target="in"))
        with pytest.raises(LimitError):
            await robots.send(order(target="out"))
        assert robots.statistics().refused == 6
    with pytest.raises(ClosedError):
        await robots.send(order(target="out"))


async def test_what_a_robot_cannot_do_fails_with_the_reason(store: Store):
    empty = RobotSpec(id="R1", home="in", battery=0.005)
    async with fleet(store, empty, RobotSpec(id="R2", home="out"), chargers=()) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        await robots.select(request(path="2", vehicles=("R2",)))
        far = order(target="out")
        await robots.send(far)
        assert "battery of R1" in ((await ear.ended(far.id)).error or "")
        drop = order("R2", target="out", operation="ForkUnload")
        await robots.send(drop)
        assert "carries nothing" in ((await ear.ended(drop.id)).error or "")
        for _ in range(2):
            load = order("R2", target="out", operation="JackLoad")
            await robots.send(load)
        assert "already" in ((await ear.ended(load.id)).error or "")
        status = await robots.lookup(load.id)
        assert status is not None
        assert status.state is OrderState.FAILED
        assert status.error == (await ear.ended(load.id)).error


async def test_failures_follow_the_seed_and_the_order(store: Store):
    rules = (Failure(operation="ForkLoad", probability=0.5, at="shelf"), Failure(operation="Wait", probability=1))
    async with fleet(store, failures=rules, operation_s=0.01, speed=100) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        outcomes = []
        for number in range(20):
            load = order(id=f"load-{number}", target="shelf", operation="ForkLoad")
            await robots.send(load)
            outcomes.append((await ear.ended(load.id)).ok)
            if outcomes[-1]:
                drop = order(id=f"drop-{number}", target="shelf", operation="ForkUnload")
                await robots.send(drop)
                assert (await ear.ended(drop.id)).ok
        assert outcomes.count(True) == 10  # by this seed and these ids, for ever
        wait = order(operation="Wait")
        await robots.send(wait)
        ended = await ear.ended(wait.id)
        assert (ended.ok, ended.result) == (False, {})


async def test_a_canceled_order_stops_the_robot_on_its_way(store: Store):
    async with fleet(store, speed=1, metres_per_s=10) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        far, next_one = order(target="out", operation="ForkLoad"), order(target="in")
        await robots.send(far)
        await robots.send(next_one)
        async with asyncio.timeout(60):
            while (moving := (await robots.robots())[0]).state != RobotState.MOVING or moving.station:
                await asyncio.sleep(0.005)
        assert (moving.state, moving.station, moving.order_id) == (RobotState.MOVING, None, far.id)
        assert moving.waypoints[-1][1:] == (30, 0)
        await robots.cancel(far.id)
        await robots.cancel("unknown")
        assert (await ear.ended(far.id)).error == "canceled"
        info = (await robots.robots())[0]
        assert info.order_id == next_one.id
        assert info.x is not None
        assert 0 < info.x < 10
        await robots.cancel(next_one.id)
        status = await robots.lookup(next_one.id)
        assert status is not None
        assert status.state is OrderState.CANCELED


async def test_the_book_outlives_the_process(store: Store):
    """No order is forgotten, none is done twice, and robots stay with those who held them."""
    ended, running = order(target="shelf", operation="ForkLoad", goods_id="P"), order(target="out")
    async with fleet(store) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        await robots.send(ended)
        await ear.ended(ended.id)
    async with fleet(store, speed=1, metres_per_s=2) as robots:
        before = (await robots.robots())[0]
        assert (before.run_id, before.path, before.carrying, before.station) == ("run", "-1/1", "P", "shelf")
        assert await robots.select(request()) == "R1"
        await robots.send(running)
    async with fleet(store) as robots:
        status = await robots.lookup(ended.id)
        assert status is not None
        assert (status.state, status.result) == (OrderState.SUCCEEDED, {"containerName": "P"})
        status = await robots.lookup(running.id)
        assert status is not None
        assert status.state is OrderState.RUNNING
        with pytest.raises(ConflictError):
            await robots.send(running)
        assert (await Ear(robots).ended(running.id)).ok
        assert robots.statistics().violations == 1


async def test_what_ended_while_nobody_looked(store: Store):
    gone = order(target="out")
    async with fleet(store) as robots:
        await robots.select(request(vehicles=("R1",)))
        await robots.send(gone)
    await asyncio.sleep(0.05)
    async with fleet(store) as robots:
        ear = Ear(robots)
        await ear.ended(gone.id)
        assert (await robots.robots())[0].station == "out"


async def test_a_robot_that_left_the_fleet_fails_its_orders(store: Store):
    lost = order(target="out")
    async with fleet(store) as robots:
        await robots.select(request(vehicles=("R1",)))
        await robots.send(lost)
    async with fleet(store, RobotSpec(id="R2", home="out")) as robots:
        status = await robots.lookup(lost.id)
        assert status is not None
        assert (status.state, status.error) == (OrderState.FAILED, "robot R1 has left the fleet")


async def test_low_batteries_charge_by_themselves_one_at_each_charger(store: Store):
    low = [RobotSpec(id=name, home="in", battery=0.1) for name in ("R1", "R2")]
    async with fleet(store, *low, charge_per_s=0.05) as robots:
        ear = Ear(robots)
        assert await robots.select(request()) is None
        await ear.until(lambda event: isinstance(event, RobotFree) and event.robot_id == "R1")
        assert robots.statistics().size == 1
        await ear.until(lambda event: isinstance(event, RobotFree) and event.robot_id == "R2")
        info = await robots.robots()
        assert {robot.station for robot in info} == {"plug"}
        assert all(robot.battery == pytest.approx(0.95, abs=0.01) for robot in info)


async def test_a_robot_given_back_with_a_load_is_emptied_by_hand(store: Store):
    async with fleet(store) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        load = order(operation="ForkLoad")
        await robots.send(load)
        await ear.ended(load.id)
        assert (await robots.robots())[0].carrying == f"C-{load.id[-6:]}"
        await robots.release("R1", "run", "-1/1")
        assert (await robots.robots())[0].carrying is None
    async with fleet(store) as robots:
        assert robots.statistics().taken_off == 1


async def test_old_orders_are_forgotten(store: Store):
    async with fleet(store, keep_s=0.001) as robots:
        ear = Ear(robots)
        await robots.select(request(vehicles=("R1",)))
        old = order()
        await robots.send(old)
        await ear.ended(old.id)
        await asyncio.sleep(0.01)
    async with fleet(store, keep_s=0.001) as robots:
        async with asyncio.timeout(60):
            while await robots.lookup(old.id) is not None:
                await asyncio.sleep(0.01)
        assert (await store.read(book.load))[1] == []


async def test_a_failing_listener_hurts_nobody_and_idle_fleets_do_nothing(store: Store):
    async with fleet(store, max_listeners=2) as robots:
        robots.listen(lambda event: 1 / 0)  # type: ignore[arg-type, return-value]
        ear = Ear(robots)
        with pytest.raises(LimitError):
            robots.listen(lambda event: None)
        await robots.select(request())
        batches = store.writer.statistics().batches
        await robots.release("R1", "run", "-1/1")
        await ear.until(lambda event: isinstance(event, RobotFree))
        await asyncio.sleep(0.1)
        assert store.writer.statistics().batches == batches + 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"speed": 0.5},
        {"speed": 101},
        {"low_battery": 0.9, "full_battery": 0.5},
        {"operation_s": 0},
        {"failures": (Failure(operation="x", probability=2),)},
    ],
)
def test_options_that_make_no_sense(wrong):
    with pytest.raises(SettingError):
        FleetOptions(**wrong)
