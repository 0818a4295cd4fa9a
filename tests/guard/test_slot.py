"""Patience with workers that are born above their limit, and its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flatwater.guard.policy import BackOff, Limits
from flatwater.guard.room import fits
from flatwater.guard.slot import Slot

MIB = 1 << 20
LIMITS = Limits(soft=100 * MIB, hard=200 * MIB)


def worker(born: float = 0.0) -> Any:
    return SimpleNamespace(born=born, hasty=False)


def test_each_one_that_is_born_too_large_is_held_for_twice_as_long() -> None:
    slot, holds = Slot(0, BackOff(), settle_s=10), []
    for _ in range(7):
        slot.recycled(worker(), slot.hold_s)
        holds.append(slot.hold_s)
    assert holds == [0, 20, 40, 80, 160, 300, 300]
    assert slot.settle_s == 10
    slot.recycled(worker(), 1000.0)
    assert slot.hold_s == 0, "it lived long enough"
    assert slot.settle_s == 10, "but they are born large still"


def test_it_is_held_until_it_is_old_enough_or_near_the_hard_limit() -> None:
    slot = Slot(0, BackOff(), settle_s=10)
    assert not slot.held(150 * MIB, 1.0, LIMITS), "the first ones are not"
    for _ in range(2):
        slot.recycled(worker(), 1.0)
    assert slot.held(150 * MIB, 19.0, LIMITS)
    assert not slot.held(150 * MIB, 21.0, LIMITS)
    assert not slot.held(191 * MIB, 1.0, LIMITS), "a tenth of the room between the limits is left"
    assert slot.held(190 * MIB, 1.0, Limits(soft=100 * MIB))
    assert not slot.held(201 * MIB, 1.0, Limits(soft=100 * MIB))


def test_workers_that_are_born_near_the_hard_limit_wait_before_they_are_replaced() -> None:
    slot, waits, now = Slot(0, BackOff(first_s=1, max_s=300), settle_s=10), [], 100.0
    for _ in range(5):
        instance = worker(born=now)
        now += 2.0  # a clean end after two seconds would be a healthy life
        slot.recycled(instance, now)
        slot.ended(instance, now, failed=False)
        waits.append(max(slot.next - now, 0))
        now = max(slot.next, now)
    assert waits == [0, 1, 2, 4, 8]


def test_without_a_control_group_the_machine_is_the_room() -> None:
    assert fits(1 << 20)
    assert not fits(1 << 50)
