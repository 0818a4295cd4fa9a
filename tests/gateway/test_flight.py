"""Single flight: who asks, who waits, and what becomes of those that wait when the asker ends badly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from flatwater.bounded import Ledger, TaskGroup
from flatwater.gateway.flight import Flights, Lead

KEY = b"k"


@pytest.fixture
def flights(ledger: Ledger) -> Flights:
    return Flights(ledger=ledger, max_wait_s=30.0)


@pytest.fixture
async def tasks(ledger: Ledger) -> AsyncIterator[TaskGroup]:
    async with TaskGroup("test", max_tasks=1000, ledger=ledger) as group:
        yield group


async def until_waiting(flights: Flights, count: int) -> None:
    while flights.statistics().waiting < count:
        await asyncio.sleep(0)


async def join_many(flights: Flights, tasks: TaskGroup, count: int) -> list[asyncio.Task[Lead | None]]:
    joined = [tasks.start(flights.join(KEY), name="join") for _ in range(count)]
    await until_waiting(flights, count)
    return joined


async def test_one_asks_and_the_others_find_it(flights: Flights, tasks: TaskGroup) -> None:
    lead = await flights.join(KEY)
    assert lead is not None
    others = await join_many(flights, tasks, 10)
    assert lead.waiting == 10
    with lead:
        lead.done()
        lead.release()  # the first word counts
    assert await asyncio.gather(*others) == [None] * 10
    statistics = flights.statistics()
    assert (statistics.led, statistics.merged, statistics.released, len(flights)) == (1, 10, 0, 0)


async def test_what_cannot_be_stored_sends_all_on_their_way_at_once(flights: Flights, tasks: TaskGroup) -> None:
    lead = await flights.join(KEY)
    assert lead is not None
    others = await join_many(flights, tasks, 10)
    with lead:
        lead.release()
        leads = await asyncio.gather(*others)  # while the leader still streams
    assert all(other is not None and other.waiting == 0 for other in leads)
    assert len(flights) == 0
    assert await flights.join(KEY) is not None  # the key is free again


async def test_a_failure_releases(flights: Flights, tasks: TaskGroup) -> None:
    lead = await flights.join(KEY)
    assert lead is not None
    others = await join_many(flights, tasks, 3)
    with pytest.raises(OSError, match="reset"), lead:
        raise OSError("reset")
    assert all(await asyncio.gather(*others))
    assert flights.statistics().released == 3


async def test_a_cancelled_leader_hands_on_to_the_one_that_waited_longest(flights: Flights, tasks: TaskGroup) -> None:
    began = asyncio.Event()

    async def lead_for_ever() -> None:
        lead = await flights.join(KEY)
        assert lead is not None
        with lead:
            began.set()
            await asyncio.Event().wait()

    leader = tasks.start(lead_for_ever(), name="leader")
    await began.wait()
    others = await join_many(flights, tasks, 5)
    leader.cancel()
    second = await others[0]
    assert second is not None
    assert second.waiting == 4
    with second:
        second.done()
    assert await asyncio.gather(*others[1:]) == [None] * 4
    assert flights.statistics().handed == 1


async def test_a_waiter_cancelled_just_when_it_should_lead_hands_on(flights: Flights, tasks: TaskGroup) -> None:
    lead = await flights.join(KEY)
    assert lead is not None
    first, second = await join_many(flights, tasks, 2)
    lead.abandon()  # hands to the first …
    first.cancel()  # … which never gets to know
    assert isinstance(await second, Lead)
    assert first.cancelled() or await asyncio.wait([first])
    assert flights.statistics().handed == 2


async def test_a_leader_without_followers_leaves_nothing(flights: Flights) -> None:
    lead = await flights.join(KEY)
    assert lead is not None
    lead.abandon()
    lead.abandon()
    assert len(flights) == 0


async def test_waiting_has_an_end(ledger: Ledger) -> None:
    flights = Flights(ledger=ledger, max_wait_s=0.01)
    lead = await flights.join(KEY)
    assert lead is not None
    alone = await flights.join(KEY)
    assert alone is not None
    with alone:
        alone.done()
    assert len(flights) == 1  # the leader still leads
    lead.done()
    statistics = flights.statistics()
    assert (statistics.timeouts, statistics.released, statistics.waiting) == (1, 1, 0)


async def test_bounds(ledger: Ledger, tasks: TaskGroup) -> None:
    flights = Flights(ledger=ledger, max_keys=1, max_waiters=2)
    lead = await flights.join(KEY)
    assert lead is not None
    others = await join_many(flights, tasks, 2)
    assert await flights.join(KEY) is not None  # too many wait: at once, alone
    assert await flights.join(b"other") is not None  # too many keys
    assert flights.lead(b"other") is None
    assert flights.statistics().refused == 2
    lead.done()
    assert await asyncio.gather(*others) == [None, None]


async def test_background_work_does_not_wait(flights: Flights) -> None:
    lead = flights.lead(KEY)
    assert lead is not None
    assert flights.lead(KEY) is None
    with lead:
        pass
    assert flights.lead(KEY) is not None
    assert len(flights) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_chaos_loses_nobody(flights: Flights, tasks: TaskGroup, seed: int) -> None:
    """Leaders and waiters are cancelled, fail and succeed at random: whoever is not cancelled gets an answer, never do
    two lead the same key at a time, and nothing is left."""
    dice = random.Random(seed)
    leading: set[bytes] = set()

    async def request(key: bytes) -> str:
        lead = await flights.join(key)
        if lead is None:
            return "found"
        follows = bool(lead.key)
        try:
            with lead:
                assert not follows or key not in leading
                if follows:
                    leading.add(key)
                try:
                    for _ in range(dice.randrange(5)):
                        await asyncio.sleep(0)
                    if dice.random() < 0.2:
                        raise OSError("reset")
                finally:
                    if follows:
                        leading.discard(key)
                if dice.random() < 0.7:
                    lead.done()
        except OSError:
            return "failed"
        return "asked"

    running = []
    for number in range(600):
        running.append(tasks.start(request(b"%d" % dice.randrange(4)), name=f"request {number}"))
        if dice.random() < 0.4:
            dice.choice(running).cancel()
        if dice.random() < 0.3:
            await asyncio.sleep(0)
    outcomes = await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 90)
    assert {outcome for outcome in outcomes if isinstance(outcome, str)} <= {"found", "failed", "asked"}
    assert all(isinstance(outcome, str | asyncio.CancelledError) for outcome in outcomes), outcomes
    statistics = flights.statistics()
    assert (statistics.size, statistics.waiting) == (0, 0)
    assert statistics.merged
    assert statistics.handed
