from __future__ import annotations

import asyncio
import gc
import logging
import random
import weakref

import pytest

from flatwater.bounded import Ledger, TaskGroup
from flatwater.errors import ClosedError, LimitError, SettingError


async def fail(message: str) -> None:
    await asyncio.sleep(0)
    raise ValueError(message)


async def stubborn(until: asyncio.Event) -> None:
    while not until.is_set():
        try:
            await until.wait()
        except asyncio.CancelledError:
            continue


async def test_result_reaches_whoever_awaits(ledger: Ledger) -> None:
    async with TaskGroup("work", max_tasks=2, ledger=ledger) as group:
        assert await group.start(asyncio.sleep(0, "done"), name="nap") == "done"
        await asyncio.sleep(0)
        assert len(group) == 0
        statistics = group.statistics()
    assert (statistics.started, statistics.succeeded, statistics.peak) == (1, 1, 1)


async def test_failure_is_logged_with_name_and_context_and_spares_the_siblings(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async with TaskGroup("work", max_tasks=9, ledger=ledger) as group:
        sibling = group.start(asyncio.sleep(0.05, "well"), name="sibling")
        group.start(fail("broken"), name="weighing", context={"run": "R1"})
        assert await sibling == "well"
        assert group.statistics().failed == 1
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "'weighing' of work failed ({'run': 'R1'})" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_task_is_held_while_it_runs_and_released_when_done(ledger: Ledger) -> None:
    async with TaskGroup("work", max_tasks=9, ledger=ledger) as group:
        gate = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await gate

        reference = weakref.ref(group.start(wait(), name="held by the group alone"))
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is not None
        gate.set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
        assert len(group) == 0
        assert reference() is None


async def test_start_refuses_above_the_limit(ledger: Ledger) -> None:
    async with TaskGroup("work", max_tasks=2, ledger=ledger) as group:
        for number in range(2):
            group.start(asyncio.sleep(60), name=f"sleeper {number}")
        with pytest.raises(LimitError, match=r"2 tasks run already, 'one more' was refused \[work\]"):
            group.start(asyncio.sleep(60), name="one more")  # closed: no warning that it was never awaited
        assert group.statistics().refused == 1


async def test_admit_waits_in_turn(ledger: Ledger) -> None:
    order: list[int] = []

    async def work(number: int) -> None:
        order.append(number)
        await asyncio.sleep(0)

    async with TaskGroup("work", max_tasks=2, ledger=ledger) as group, TaskGroup("c", max_tasks=99, ledger=ledger) as c:
        for number in range(20):
            c.start(group.admit(work(number), name=f"{number}"), name=f"caller {number}")
        await asyncio.sleep(0)
        assert group.statistics().waiting == 18
        assert await c.drain(5)
        assert await group.drain(5)
        assert group.statistics().peak == 2
    assert order == list(range(20))


async def test_room_granted_to_a_cancelled_caller_goes_to_the_next(ledger: Ledger) -> None:
    async with TaskGroup("work", max_tasks=1, ledger=ledger) as group, TaskGroup("c", max_tasks=9, ledger=ledger) as c:
        first = group.start(asyncio.sleep(60), name="first")
        given_up = c.start(group.admit(asyncio.sleep(60), name="given up"), name="a")
        patient = c.start(group.admit(asyncio.sleep(0, "mine"), name="patient"), name="b")
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # now the room is granted to `given_up`, which has not run yet
        given_up.cancel()
        assert await (await asyncio.wait_for(patient, 60)) == "mine"
        assert group.statistics().waiting == 0


async def test_limit_holds_whatever_happens(ledger: Ledger) -> None:
    """Random starts, waits, cancellations: never above the limit, and all the rooms come back."""
    dice = random.Random(7)
    async with (
        TaskGroup("work", max_tasks=3, ledger=ledger) as group,
        TaskGroup("c", max_tasks=500, ledger=ledger) as c,
    ):
        for number in range(400):
            caller = c.start(group.admit(asyncio.sleep(dice.random() / 500), name=f"{number}"), name=f"c{number}")
            if dice.random() < 0.3:
                asyncio.get_running_loop().call_later(dice.random() / 20, caller.cancel)
            if dice.random() < 0.2:
                await asyncio.sleep(0)
        assert await c.drain(20)
        assert await group.drain(20)
        statistics = group.statistics()
        assert statistics.peak == 3
        assert statistics.started == statistics.succeeded
        for number in range(3):
            group.start(asyncio.sleep(60), name=f"all three rooms are free: {number}")


async def test_leaving_cancels_and_waits(ledger: Ledger) -> None:
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned = True

    async with TaskGroup("work", max_tasks=1, ledger=ledger) as group:
        group.start(work(), name="work")
        await asyncio.sleep(0)
    assert cleaned
    assert group.statistics().canceled == 1
    await group.stop()


async def test_stopped_group_refuses_and_wakes_those_who_wait(ledger: Ledger) -> None:
    async with TaskGroup("callers", max_tasks=9, ledger=ledger) as callers:
        group = TaskGroup("work", max_tasks=1, ledger=ledger)
        with pytest.raises(ClosedError, match="cannot start"):
            group.start(asyncio.sleep(0), name="too early")
        async with group:
            group.start(asyncio.sleep(60), name="first")
            caller = callers.start(group.admit(asyncio.sleep(0), name="second"), name="caller")
            await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await caller
        with pytest.raises(ClosedError):
            group.start(asyncio.sleep(0), name="too late")
        with pytest.raises(ClosedError, match="entered once"):
            await group.__aenter__()


async def test_task_that_does_not_heed_cancellation_is_named(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    until = asyncio.Event()
    async with TaskGroup("work", max_tasks=1, ledger=ledger, stop_timeout_s=0.05) as group:
        task = group.start(stubborn(until), name="mule", context="in the yard")
        await asyncio.sleep(0)
    assert group.statistics().abandoned == 1
    assert "'mule' of work does not heed its cancellation ('in the yard')" in caplog.text
    until.set()
    await task


async def test_drain_waits_for_tasks_started_meanwhile(ledger: Ledger) -> None:
    async with TaskGroup("work", max_tasks=2, ledger=ledger) as group:

        async def chain(left: int) -> None:
            await asyncio.sleep(0)
            if left:
                group.start(chain(left - 1), name=f"{left}")

        group.start(chain(5), name="first")
        assert await group.drain(5)
        assert group.statistics().succeeded == 6
        group.start(asyncio.sleep(60), name="long")
        assert not await group.drain(0.01)


async def test_a_task_may_stop_its_own_group(ledger: Ledger) -> None:
    async with TaskGroup("work", max_tasks=2, ledger=ledger) as group:
        sleeper = group.start(asyncio.sleep(60), name="sleeper")
        await asyncio.wait_for(group.start(group.stop(), name="stopper"), 5)
        assert sleeper.cancelled()


async def test_tasks_are_listed_oldest_first(ledger: Ledger) -> None:
    async with TaskGroup("work", max_tasks=2, ledger=ledger) as group:
        group.start(asyncio.sleep(60), name="old", context="x")
        await asyncio.sleep(0.01)
        group.start(asyncio.sleep(60), name="new")
        old, new = group.tasks()
        assert (old.name, old.context, new.name, new.context) == ("old", "x", "new", None)
        assert old.age_s > new.age_s >= 0


def test_bounds_are_checked(ledger: Ledger) -> None:
    with pytest.raises(SettingError, match="max_tasks is 0"):
        TaskGroup("work", max_tasks=0, ledger=ledger)
