from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flatwater.bounded import Fanout, Ledger, Message, Subscription, TaskGroup
from flatwater.errors import LimitError, SettingError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(ledger: Ledger, clock: Clock | None = None, *, max_messages: int = 4) -> Fanout[str]:
    return Fanout("f", max_messages=max_messages, max_subscribers=2, linger_s=30, clock=clock or Clock(), ledger=ledger)


def pairs(messages: list[Message[str]]) -> list[tuple[int, str, int]]:
    return [(message.seq, message.item, message.lost) for message in messages]


def test_each_subscriber_gets_everything_in_order(ledger: Ledger) -> None:
    fanout = make(ledger)
    with fanout.subscribe() as left, fanout.subscribe() as right:
        fanout.publish("a")
        fanout.publish("b")
        assert pairs(left.ready()) == [(1, "a", 0), (2, "b", 0)]
        fanout.publish("c")
        assert pairs(left.ready()) == [(3, "c", 0)]
        assert pairs(right.ready(max_messages=2)) == [(1, "a", 0), (2, "b", 0)]
        assert pairs(right.ready()) == [(3, "c", 0)]


def test_slow_subscriber_loses_the_oldest_and_is_told(ledger: Ledger) -> None:
    fanout = make(ledger)
    with fanout.subscribe() as slow:
        for letter in "abcdefg":
            fanout.publish(letter)
        assert pairs(slow.ready()) == [(4, "d", 3), (5, "e", 0), (6, "f", 0), (7, "g", 0)]
    assert fanout.statistics().lost == 3
    assert fanout.statistics().evictions == 3


def test_who_comes_back_gets_what_was_published_meanwhile(ledger: Ledger) -> None:
    clock = Clock()
    fanout = make(ledger, clock)
    with fanout.subscribe() as first:
        fanout.publish("a")
        last = first.ready()[-1].seq
    clock.now += 29
    fanout.publish("b")
    with fanout.subscribe(after=last) as again:
        assert pairs(again.ready()) == [(2, "b", 0)]


def test_who_comes_back_too_late_is_told_what_it_lost(ledger: Ledger) -> None:
    clock = Clock()
    fanout = make(ledger, clock)
    with fanout.subscribe():
        fanout.publish("a")
    clock.now += 31
    fanout.publish("b")
    assert fanout.statistics().size == 0
    with fanout.subscribe(after=0) as again:
        assert again.ready() == []
        fanout.publish("c")
        assert pairs(again.ready()) == [(3, "c", 2)]


@pytest.mark.parametrize("after", [99, -5])
def test_foreign_number(ledger: Ledger, after: int) -> None:
    fanout = make(ledger)
    with fanout.subscribe(), fanout.subscribe(after=after) as other:
        fanout.publish("a")
        assert pairs(other.ready()) == [(1, "a", 0)]


def test_nothing_is_made_when_nobody_listens(ledger: Ledger) -> None:
    fanout = make(ledger)
    made: list[str] = []

    def item(letter: str) -> str:
        made.append(letter)
        return letter

    assert fanout.offer(item, "a") == 1
    assert not fanout.wanted
    with fanout.subscribe() as subscription:
        assert fanout.offer(item, "b") == 2
        assert pairs(subscription.ready()) == [(2, "b", 0)]
    assert made == ["b"]
    assert fanout.seq == 2


def test_filter(ledger: Ledger) -> None:
    fanout = make(ledger, max_messages=10)
    with fanout.subscribe(wants=str.isupper) as subscription:
        for letter in "aBcD":
            fanout.publish(letter)
        assert pairs(subscription.ready(max_messages=2)) == [(2, "B", 0), (4, "D", 0)]


def test_bytes_are_bounded_and_an_oversize_item_is_lost_alone(ledger: Ledger) -> None:
    fanout: Fanout[str] = Fanout("f", max_messages=9, max_subscribers=1, max_bytes=5, sizeof=len, ledger=ledger)
    with fanout.subscribe() as subscription:
        for item in ("ab", "cd", "too long", "e"):
            fanout.publish(item)
        assert pairs(subscription.ready()) == [(1, "ab", 0), (2, "cd", 0), (4, "e", 1)]
        fanout.publish("fgh")
        statistics = fanout.statistics()
        assert (statistics.bytes, statistics.oversize, statistics.evictions) == (4, 1, 2)


def test_subscribers_are_bounded_and_forgotten_ones_leave(ledger: Ledger) -> None:
    fanout = make(ledger)
    kept = [fanout.subscribe(), fanout.subscribe()]
    with pytest.raises(LimitError, match="2 subscribers listen already"):
        fanout.subscribe()
    kept.clear()
    gc.collect()
    assert fanout.statistics().subscribers == 0
    subscription = fanout.subscribe()
    subscription.close()
    subscription.close()
    assert fanout.statistics().subscribers == 0


async def test_waiting_reader_is_woken(ledger: Ledger) -> None:
    async with TaskGroup("t", max_tasks=1, ledger=ledger) as tasks, make(ledger) as fanout:
        with fanout.subscribe() as subscription:
            reader = tasks.start(subscription.batch(), name="reader")
            await asyncio.sleep(0)
            fanout.publish("a")
            fanout.publish("b")
            assert pairs(await reader) == [(1, "a", 0), (2, "b", 0)]


async def test_iteration_ends_with_the_fanout_after_what_is_left(ledger: Ledger) -> None:
    fanout = make(ledger)
    with fanout.subscribe() as subscription:
        fanout.publish("a")
        fanout.stop()
        fanout.stop()
        assert [message.item async for message in subscription] == ["a"]
        assert subscription.ended


async def test_closing_a_subscription_ends_its_reader(ledger: Ledger) -> None:
    fanout = make(ledger)
    async with TaskGroup("t", max_tasks=1, ledger=ledger) as tasks:
        subscription = fanout.subscribe()
        reader = tasks.start(subscription.batch(), name="reader")
        await asyncio.sleep(0)
        subscription.close()
        assert await asyncio.wait_for(reader, 60) == []


async def test_timeout_and_cancellation_leave_no_sleeper(ledger: Ledger) -> None:
    fanout = make(ledger)
    async with TaskGroup("t", max_tasks=1, ledger=ledger) as tasks:
        with fanout.subscribe() as subscription:
            assert await subscription.batch(timeout_s=0.01) == []
            assert await subscription.batch(timeout_s=0) == []
            assert not subscription.ended
            reader = tasks.start(subscription.batch(), name="reader")
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait([reader])
            assert fanout._sleepers == []
            fanout.publish("a")
            assert pairs(await subscription.batch()) == [(1, "a", 0)]


def test_settings_are_checked(ledger: Ledger) -> None:
    with pytest.raises(SettingError, match="go together"):
        Fanout("f", max_messages=1, max_subscribers=1, sizeof=len, ledger=ledger)


class FanoutMachine(RuleBasedStateMachine):
    """Against a model that keeps everything: each message is seen once, in order, or told as lost."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.fanout: Fanout[int] = Fanout(
            "f",
            max_messages=5,
            max_subscribers=3,
            max_bytes=40,
            sizeof=lambda item: item,
            linger_s=10,
            clock=self.clock,
            ledger=Ledger(),
        )
        self.all: list[int] = []  # message n is at n - 1
        self.newest_was_heard = False
        self.open: list[Subscription[int]] = []
        self.seen: list[int] = []  # by subscriber: the last number it has seen or knows to be lost
        self.left_at: list[int] = []  # numbers with which readers left

    @rule(size=st.integers(0, 50))
    def publish(self, size: int) -> None:
        assert self.fanout.publish(size) == len(self.all) + 1
        self.all.append(size)
        self.newest_was_heard = bool(self.open)

    @precondition(lambda self: len(self.open) < 3)
    @rule(data=st.data())
    def subscribe(self, data: st.DataObject) -> None:
        after = data.draw(st.sampled_from([None, *self.left_at]))
        self.open.append(self.fanout.subscribe(after=after))
        self.seen.append(len(self.all) if after is None else after)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), max_messages=st.integers(1, 4))
    def read(self, data: st.DataObject, max_messages: int) -> None:
        index = data.draw(st.integers(0, len(self.open) - 1))
        messages = self.open[index].ready(max_messages)
        assert len(messages) <= max_messages
        for message in messages:
            assert message.seq == self.seen[index] + message.lost + 1
            assert message.item == self.all[message.seq - 1]
            self.seen[index] = message.seq

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.open) - 1))
        self.open.pop(index).close()
        self.left_at.append(self.seen.pop(index))

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def bounded(self) -> None:
        statistics = self.fanout.statistics()
        assert statistics.size <= 5
        assert 0 <= (statistics.bytes or 0) <= 40
        assert statistics.subscribers == len(self.open)

    @invariant()
    def newest_is_kept_for_those_who_listen(self) -> None:
        """Of the last messages, as many as fit are there for whoever asks."""
        if self.newest_was_heard and 0 < len(self.open) < 3 and self.all[-1] <= 40:
            with self.fanout.subscribe(after=len(self.all) - 1) as probe:
                assert [message.item for message in probe.ready()] == self.all[-1:]


TestFanoutMachine = FanoutMachine.TestCase
TestFanoutMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
