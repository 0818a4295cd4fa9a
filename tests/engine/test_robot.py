"""Robot blocks end to end: a real engine, a real store, the simulated fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flatwater.engine import Engine, EngineOptions
from flatwater.engine.driver import OrderState, RobotInfo
from flatwater.engine.fleet import Failure, Fleet, RobotSpec
from flatwater.store import step as steps
from flatwater.store.state import State
from flatwater.store.store import Store
from tests.engine.fleet.hall import fleet
from tests.engine.plan import b, plan

R1 = RobotSpec(id="R1", home="in", tags=("fork",))
R2 = RobotSpec(id="R2", home="out")


class Site:
    """One process's worth: its engine and its fleet."""

    def __init__(self, engine: Engine, robots: Fleet) -> None:
        self.engine, self.fleet = engine, robots

    async def start(self, *blocks: Any, **options: Any) -> str:
        outputs = options.pop("outputs", None)
        await self.engine.save(plan("robots", *blocks, outputs=outputs), "robots")
        return await self.engine.submit("robots", **options)

    async def until(self, true: Callable[[list[RobotInfo]], bool], timeout_s: float = 60.0) -> list[RobotInfo]:
        async with asyncio.timeout(timeout_s):
            while not true(found := await self.fleet.robots()):
                await asyncio.sleep(0.005)
        return found

    async def tell(self, event: str) -> None:
        """Publish an event to whoever waits for it, as soon as somebody does."""
        async with asyncio.timeout(60):
            while not (await self.engine.publish(event)).delivered:
                await asyncio.sleep(0.005)

    async def parked(self, *runs: str) -> None:
        """Until these runs wait, and none is in memory."""
        async with asyncio.timeout(60):
            while (
                any([(await self.engine.store.read(_run, run)).state != State.WAITING for run in runs])
                or self.engine.statistics().scheduler.active
            ):
                await asyncio.sleep(0.005)

    async def all_free(self) -> None:
        await self.until(lambda robots: all(robot.run_id is None and robot.order_id is None for robot in robots))


Open = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def open_site(tmp_path: Path) -> Open:
    """Open engine and fleet on the test's database; again for a restart. Keyword arguments change the fleet."""

    @asynccontextmanager
    async def open_(*robots: RobotSpec, engine: Any = None, **changes: Any) -> AsyncIterator[Site]:
        options = EngineOptions(park_after_s=0.02, **(engine or {}))
        async with (
            Store.open(f"sqlite:///{tmp_path}/flatwater.db") as store,
            fleet(store, *(robots or (R1, R2)), **changes) as driver,
            Engine(store, driver=driver, options=options) as running,
        ):
            yield Site(running, driver)

    return open_


@pytest.fixture
async def site(open_site: Open) -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site


def carry(id: int = 1, *inside: Any, **select: Any) -> Any:
    """Select a robot and bring something from the shelf to the exit."""
    return b(
        id, "CSelectAgvBp", select,
        default=[
            b(id + 1, "CAgvOperationBp", {"targetSiteLabel": "shelf", "scriptName": "ForkLoad", "goodsId": "P-1"}),
            *inside,
            b(id + 2, "CAgvOperationBp", {"targetSiteLabel": "out", "scriptName": "ForkUnload"}),
        ],
    )  # fmt: skip


def holding() -> Any:
    """Have a robot until "leave" is told."""
    return b(1, "CSelectAgvBp", default=[b(2, "WaitEventBp", {"eventName": "leave"})])


async def test_a_robot_brings_a_load(site: Site):
    run = await site.start(
        carry(
            1, b(8, "GetBatteryLevelBp"), b(9, "VehicleStationBp"),
            b(10, "SetTaskVariableBp", {"varName": "agv", "varValue": "=blocks.b1.selectedAgvId"}),
            keyRoute="shelf,out", tag="fork",
        ),
        outputs={
            "agv": "task.variables.agv", "robot": "blocks.b1.selectedAgvId", "load": "blocks.b2.containerName",
            "battery": "blocks.b8.batteryLevel", "at": "blocks.b9.station", "from": "blocks.b9.lastStation",
        },
    )  # fmt: skip
    outcome = await site.engine.result(run, 60)
    assert outcome.state == State.SUCCEEDED, outcome.error
    assert outcome.outputs == {
        "agv": "R1", "robot": "R1", "load": "P-1", "battery": 0.9945, "at": "shelf", "from": "in",
    }  # fmt: skip
    await site.all_free()
    assert (site.fleet.statistics().accepted, site.fleet.statistics().taken_off) == (2, 0)


async def test_more_runs_than_robots(site: Site):
    await site.engine.save(plan("robots", carry()), "robots")
    runs = [await site.engine.submit("robots") for _ in range(8)]
    for run in runs:
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
    await site.all_free()
    statistics = site.fleet.statistics()
    assert (statistics.accepted, statistics.succeeded, statistics.refused) == (16, 16, 0)
    assert await rows(site) == []


async def rows(site: Site) -> list[Any]:
    """The waiters of all runs."""

    def look(tx: Any) -> list[Any]:
        from sqlalchemy import select

        from flatwater.store import schema

        return tx.all(select(schema.waiter.c.run_id, schema.waiter.c.path, schema.waiter.c.kind, schema.waiter.c.key))

    return await site.engine.store.read(look)


async def test_robots_are_given_by_priority_then_arrival(open_site: Open):
    async with open_site(R1, speed=20) as site:
        order: list[str] = []
        await site.engine.save(plan("long", holding()), "long")
        first = await site.engine.submit("long")
        await site.until(lambda robots: robots[0].run_id == first)
        await site.engine.save(
            plan("short", b(1, "CSelectAgvBp", default=[b(2, "DelayBp", {"timeMillis": 20})])), "short"
        )
        waiting = {}
        for name, priority in [("low", 0), ("high", 5), ("low too", 0)]:
            waiting[name] = await site.engine.submit("short", priority=priority)
            await site.parked(waiting[name])
        await site.tell("leave")

        async def note(name: str) -> None:
            await site.engine.result(waiting[name], 60)
            order.append(name)

        await asyncio.gather(*(note(name) for name in waiting))
        assert order == ["high", "low", "low too"]


async def test_one_who_cannot_be_served_holds_nobody_up(site: Site):
    picky = await site.start(b(1, "CSelectAgvBp", {"tag": "crane"}))
    await site.engine.save(plan("easy", carry()), "easy")
    easy = await site.engine.submit("easy")
    assert (await site.engine.result(easy, 60)).state == State.SUCCEEDED
    row = await site.engine.store.read(_run, picky)
    assert row.state in (State.WAITING, State.RUNNING)
    await site.engine.cancel(picky)
    assert (await site.engine.result(picky, 60)).state == State.CANCELED
    assert await rows(site) == []


def _run(tx: Any, run_id: str) -> Any:
    from flatwater.store import run as runs

    return runs.get(tx, run_id)


async def test_a_failed_order_fails_the_block_with_the_robots_reason(open_site: Open):
    async with open_site(failures=(Failure(operation="ForkLoad", probability=1.0),)) as site:
        run = await site.start(carry())
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.FAILED
        assert outcome.error_path == "-1/1/2"
        assert "ForkLoad at shelf failed" in (outcome.error or "")
        await site.all_free()


async def test_each_attempt_is_an_order_of_its_own(open_site: Open):
    async with open_site(failures=(Failure(operation="Weigh", probability=0.5),), operation_s=0.1) as site:
        weigh = b(2, "CAgvOperationBp", {"scriptName": "Weigh"}, retry={"maxAttempts": 40, "delayMs": 1})
        run = await site.start(b(1, "CSelectAgvBp", default=[weigh]))
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
        statistics = site.fleet.statistics()
        assert statistics.violations == 0
        step = await site.engine.store.read(_step, run, "-1/1/2")
        assert statistics.accepted == step.attempt == statistics.failed + 1


def _step(tx: Any, run_id: str, path: str) -> Any:
    return next(step for step in steps.load(tx, [run_id])[run_id] if step.path == path)


async def test_a_retried_run_sends_new_orders(open_site: Open):
    async with open_site(failures=(Failure(operation="ForkLoad", probability=1.0),)) as site:
        run = await site.start(carry())
        assert (await site.engine.result(run, 60)).state == State.FAILED
    async with open_site() as site:
        await site.engine.retry(run)
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
        assert site.fleet.statistics().violations == 0


async def test_a_robot_is_free_for_the_catch_branch(open_site: Open):
    """The robot of a block that failed is given back at once, not at the end of the run."""
    async with open_site(R1, failures=(Failure(operation="ForkLoad", probability=1.0, at="shelf"),)) as site:
        rescue = b(20, "CSelectAgvBp", default=[b(21, "CAgvOperationBp", {"targetSiteLabel": "in"})])
        run = await site.start(b(10, "TryCatchBp", {"swallowError": True}, try_=[carry()], catch=[rescue]))
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
        await site.all_free()


async def test_jumps_out_of_the_block_give_the_robot_back(open_site: Open):
    async with open_site(R1) as site:
        jump = b(3, "CSelectAgvBp", default=[b(4, "BreakBp")])
        run = await site.start(
            b(2, "RepeatNumBp", {"num": 5}, default=[jump]),
            b(5, "CSelectAgvBp", default=[b(6, "CAgvOperationBp", {"targetSiteLabel": "out"}), b(7, "ReturnBp")]),
        )
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
        await site.all_free()


@pytest.mark.parametrize("wait_s", [0.0, 0.3])  # 0.3 s: the run has left memory
async def test_a_canceled_run_stops_its_robot(open_site: Open, wait_s: float):
    async with open_site(speed=1, metres_per_s=1) as site:
        run = await site.start(carry(keyRoute="in"))
        await site.until(lambda robots: robots[0].order_id is not None)
        await asyncio.sleep(wait_s)
        order = (await site.fleet.robots())[0].order_id
        assert order is not None
        await site.engine.cancel(run)
        assert (await site.engine.result(run, 60)).state == State.CANCELED
        await site.all_free()
        status = await site.fleet.lookup(order)
        assert status is not None
        assert status.state is OrderState.CANCELED


async def test_a_stopped_branch_gives_its_robot_back(open_site: Open):
    async with open_site(speed=1, metres_per_s=1) as site:
        stop = [b(5, "WaitEventBp", {"eventName": "stop"}), b(6, "StopOtherBranch")]
        stop += [b(7, "WaitEventBp", {"eventName": "end"})]
        run = await site.start(b(9, "ParallelFlowBp", default=[carry(), b(4, "SerialFlowBp", default=stop)]))
        await site.until(lambda robots: any(robot.order_id for robot in robots))
        await site.tell("stop")
        await site.all_free()
        assert (await site.engine.store.read(_run, run)).state not in (State.SUCCEEDED, State.CANCELED)
        await site.tell("end")
        assert (await site.engine.result(run, 60)).state == State.SUCCEEDED


async def test_the_next_attempt_of_a_flow_block_sends_its_orders_anew(open_site: Open):
    again = {"maxAttempts": 2, "delayMs": 1, "factor": 1, "jitter": 0}
    number = {"varName": "n", "varValue": "=has(task.variables.n) ? task.variables.n + 1 : 1"}
    fail = b(8, "IfBp", {"condition": "=task.variables.n == 1"}, default=[b(9, "ThrowExceptionBp")])
    async with open_site(R1) as site:
        run = await site.start(
            b(1, "SerialFlowBp", retry=again, default=[b(2, "SetTaskVariableBp", number), carry(3), fail])
        )
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
        assert (site.fleet.statistics().accepted, site.fleet.statistics().violations) == (4, 0)


async def test_a_block_that_takes_too_long_stops_its_robot(open_site: Open):
    async with open_site(speed=1, metres_per_s=1) as site:
        slow = b(2, "CAgvOperationBp", {"targetSiteLabel": "out"}, timeoutMs=200)
        run = await site.start(b(1, "CSelectAgvBp", {"vehicle": "R1"}, default=[slow]))
        outcome = await site.engine.result(run, 60)
        assert (outcome.state, outcome.error_path) == (State.FAILED, "-1/1/2")
        await site.all_free()


async def test_a_parked_run_keeps_its_robot_over_a_restart(open_site: Open):
    async with open_site(R1, speed=1, metres_per_s=4) as site:
        run = await site.start(carry())
        other = await site.engine.submit("robots")
        await site.until(lambda robots: robots[0].order_id is not None)
        await site.parked(run, other)
        claimed = site.engine.statistics().scheduler.claimed
        await asyncio.sleep(0.2)
        assert site.engine.statistics().scheduler.claimed == claimed  # nothing brings it back for no reason
        holder = (await site.fleet.robots())[0].run_id
        order = (await site.fleet.robots())[0].order_id
    async with open_site(R1) as site:
        assert order is not None
        for each in (run, other):
            outcome = await site.engine.result(each, 60)
            assert outcome.state == State.SUCCEEDED, outcome.error
        await site.all_free()
        assert site.fleet.statistics().violations == 0
        sent = await site.engine.store.read(_orders)
        assert len(sent) == 4
        assert [run_id for run_id, _ in sent[:2]] == [holder, holder]
        assert sent[0][1] == order


def _orders(tx: Any) -> list[tuple[str, str]]:
    from sqlalchemy import select

    from flatwater.store import schema

    table = schema.robot_order
    return [tuple(row) for row in tx.all(select(table.c.run_id, table.c.id).order_by(table.c.sent_at))]


async def test_a_waiting_run_leaves_memory_and_comes_back(open_site: Open):
    async with open_site(R1, speed=10) as site:
        first = await site.start(holding())
        await site.until(lambda robots: robots[0].run_id == first)
        await site.engine.save(plan("next", carry()), "next")
        second = await site.engine.submit("next")
        await site.parked(first, second)
        row = await site.engine.store.read(_run, second)
        assert row.state == State.WAITING
        assert "a robot" in (row.wait or "")
        await site.tell("leave")
        assert (await site.engine.result(second, 60)).state == State.SUCCEEDED
        assert (await site.engine.result(first, 60)).state == State.SUCCEEDED
        await site.all_free()


async def test_a_lost_order_is_sent_again(open_site: Open, tmp_path: Path):
    """Crash between the record of the intent and the sending: the order never arrived, so it goes out now, once."""
    async with open_site(R1, speed=1, metres_per_s=1) as site:
        run = await site.start(b(1, "CSelectAgvBp", default=[b(2, "CAgvOperationBp", {"targetSiteLabel": "out"})]))
        [robot] = await site.until(lambda robots: robots[0].order_id is not None)
        await site.parked(run)
    async with Store.open(f"sqlite:///{tmp_path}/flatwater.db") as store:
        assert robot.order_id is not None
        await store.writer.call(_forget, robot.order_id)
    async with open_site(R1) as site:
        assert site.engine.services.robots is not None
        site.engine.services.robots._lost_s = 0.0
        outcome = await site.engine.result(run, 60)
        assert outcome.state == State.SUCCEEDED, outcome.error
        assert site.fleet.statistics().violations == 0
        assert (await site.engine.store.read(_orders))[0][1] == robot.order_id


def _forget(tx: Any, order_id: str) -> None:
    from sqlalchemy import delete

    from flatwater.store import schema

    tx.run(delete(schema.robot_order).where(schema.robot_order.c.id == order_id))


async def test_a_request_that_can_never_be_met_fails_and_holds_nobody_up(site: Site):
    run = await site.start(carry(keyRoute="nowhere"))
    outcome = await site.engine.result(run, 60)
    assert (outcome.state, outcome.error_path) == (State.FAILED, "-1/1")
    assert "'nowhere' is not on the robots' map" in (outcome.error or "")
    await site.engine.save(plan("easy", carry()), "easy")
    assert (await site.engine.result(await site.engine.submit("easy"), 60)).state == State.SUCCEEDED


async def test_a_driver_that_fails_is_asked_again(site: Site, monkeypatch: pytest.MonkeyPatch):
    failures = {"release": 2, "select": 1}
    assert site.engine.services.robots is not None
    monkeypatch.setattr(site.engine.services.robots, "_recheck_s", 0.05)
    monkeypatch.setattr(site.engine.services.robots, "_retry_s", 0.05)
    for name in failures:
        monkeypatch.setattr(site.fleet, name, _failing(name, getattr(site.fleet, name), failures))
    run = await site.start(carry())
    assert (await site.engine.result(run, 60)).state == State.SUCCEEDED
    await site.all_free()
    assert failures["release"] == failures["select"] == 0


def _failing(name: str, method: Any, failures: dict[str, int]) -> Any:
    async def call(*args: Any) -> Any:
        if failures[name]:
            failures[name] -= 1
            raise OSError("the fleet does not answer")
        return await method(*args)

    return call


async def test_an_order_that_may_have_arrived_is_not_given_up(site: Site, monkeypatch: pytest.MonkeyPatch):
    """The answer to `send` is lost, and then the fleet is silent for a while: no failure, no second order."""
    assert site.engine.services.robots is not None
    monkeypatch.setattr(site.engine.services.robots, "_recheck_s", 0.05)
    monkeypatch.setattr(site.engine.services.robots, "_retry_s", 0.05)
    send, lookup, deaf = site.fleet.send, site.fleet.lookup, {"lookup": 3}

    async def answerless(order: Any) -> None:
        monkeypatch.setattr(site.fleet, "send", send)
        await send(order)
        monkeypatch.setattr(site.fleet, "lookup", _failing("lookup", lookup, deaf))
        raise TimeoutError

    monkeypatch.setattr(site.fleet, "send", answerless)
    run = await site.start(b(1, "CSelectAgvBp", default=[b(2, "CAgvOperationBp", {"targetSiteLabel": "shelf"})]))
    outcome = await site.engine.result(run, 60)
    assert outcome.state == State.SUCCEEDED, outcome.error
    assert (site.fleet.statistics().accepted, site.fleet.statistics().violations) == (1, 0)
    await site.all_free()


async def test_without_robots_the_error_says_so(tmp_path: Path):
    async with Store.open(f"sqlite:///{tmp_path}/x.db") as store, Engine(store) as engine:
        await engine.save(plan("robots", b(1, "CSelectAgvBp"), b(2, "VehicleStationBp")), "robots")
        outcome = await engine.result(await engine.submit("robots"), 60)
        assert "robot driver" in (outcome.error or "")


async def test_an_operation_outside_of_a_selection(site: Site):
    run = await site.start(b(1, "CAgvOperationBp", {"targetSiteLabel": "out"}))
    outcome = await site.engine.result(run, 60)
    assert "put it into one" in (outcome.error or "")


async def test_an_unknown_station_fails_before_anything_moves(site: Site):
    run = await site.start(b(1, "CSelectAgvBp", default=[b(2, "CAgvOperationBp", {"targetSiteLabel": "outt"})]))
    outcome = await site.engine.result(run, 60)
    assert "is it out" in (outcome.error or "")
    await site.all_free()


def test_names_in_every_form():
    from flatwater.engine.blocks.robot import names
    from flatwater.errors import RunError

    assert names(None) == names("") == names("[]") == ()
    assert names("R1") == names(["R1"]) == names('["R1"]') == ("R1",)
    assert names("R1, R2,") == ("R1", "R2")
    assert names(7) == ("7",)
    with pytest.raises(RunError):
        names("[R1")
