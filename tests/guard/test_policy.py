"""When the guard acts: levels, slopes, grace, clocks that jump, births above the limit, crash loops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.errors import SettingError
from flatwater.guard.policy import BackOff, Limits, Policy, Verdict
from flatwater.memory.slope import slope

MIB = 1 << 20
LIMITS = Limits(soft=100 * MIB, hard=200 * MIB, grace_s=60, patience_s=2, ahead_s=30)


def test_the_soft_limit_is_said_once_and_the_grace_ends_in_a_kill() -> None:
    policy = Policy(LIMITS, base=20 * MIB)
    assert policy.judge(99 * MIB, 0).verdict is Verdict.KEEP
    assert policy.judge(100 * MIB, 1).reason == "soft limit"
    policy.ask()
    verdicts = [policy.judge(100 * MIB, 1 + at) for at in range(1, 61)]
    assert {one.verdict for one in verdicts[:-1]} == {Verdict.KEEP}
    assert (verdicts[-1].verdict, verdicts[-1].reason) == (Verdict.KILL, "grace passed")


def test_no_grace_runs_while_the_stop_waits_for_its_turn() -> None:
    policy = Policy(LIMITS, base=20 * MIB)
    assert policy.judge(100 * MIB, 0).verdict is Verdict.RECYCLE
    assert {policy.judge(100 * MIB, at).verdict for at in range(1, 300)} == {Verdict.KEEP}
    policy.ask()
    assert {policy.judge(100 * MIB, at).verdict for at in range(300, 359)} == {Verdict.KEEP}
    assert policy.judge(100 * MIB, 359).reason == "grace passed"


def test_what_waits_for_its_turn_is_killed_at_the_hard_limit() -> None:
    policy = Policy(LIMITS, base=20 * MIB)
    assert policy.judge(100 * MIB, 0).verdict is Verdict.RECYCLE
    assert policy.judge(200 * MIB, 1).verdict is Verdict.KEEP
    assert policy.judge(200 * MIB, 3).reason == "hard limit"


def test_a_spike_above_the_hard_limit_may_pass() -> None:
    policy = Policy(LIMITS, base=20 * MIB)
    assert policy.judge(250 * MIB, 0).verdict is Verdict.RECYCLE
    assert policy.judge(250 * MIB, 1).verdict is Verdict.KEEP
    assert policy.judge(50 * MIB, 1.5).verdict is Verdict.KEEP
    assert policy.judge(250 * MIB, 3).verdict is Verdict.KEEP
    assert policy.judge(250 * MIB, 5).reason == "hard limit"


@given(st.lists(st.sampled_from([-1e9, -3600.0, 0.0, 1.0, 3600.0, 1e9]), max_size=11))
def test_no_jump_of_the_clock_uses_up_the_grace(steps: list[float]) -> None:
    policy = Policy(LIMITS, base=0)
    now = 0.0
    assert policy.judge(100 * MIB, now).verdict is Verdict.RECYCLE
    policy.ask()
    for step in steps:  # eleven steps count as 55 s at most
        now += step
        assert policy.judge(100 * MIB, now).verdict is Verdict.KEEP


def test_a_worker_that_was_born_above_the_limit_does_not_loop() -> None:
    policy = Policy(LIMITS, base=120 * MIB)
    assert policy.judge(121 * MIB, 0).verdict is Verdict.KEEP
    assert policy.judge(133 * MIB, 1).verdict is Verdict.RECYCLE


def test_a_worker_that_settles_has_room_up_to_halfway_between_the_limits() -> None:
    policy = Policy(LIMITS, base=10 * MIB)
    for at, level in enumerate([90, 120, 140]):
        policy.settle(level * MIB)
        assert policy.judge(level * MIB, at).verdict is Verdict.KEEP
    policy.settle(151 * MIB)
    assert policy.judge(151 * MIB, 4).reason == "soft limit", "it grows as if it would never end"


def test_a_sure_slope_asks_ahead_of_the_hard_limit() -> None:
    limits = Limits(hard=200 * MIB, ahead_s=30)
    steep = slope([(at, at * 4 * MIB) for at in range(40)])
    flat = slope([(at, 160 * MIB + (at * 7919) % 13) for at in range(40)])
    assert Policy(limits, base=20 * MIB).judge(160 * MIB, 0, flat).verdict is Verdict.KEEP
    assert Policy(limits, base=20 * MIB).judge(40 * MIB, 0, steep).verdict is Verdict.KEEP
    assert Policy(limits, base=20 * MIB).judge(170 * MIB, 0, steep).reason == "slope"


def test_limits_from_the_room_of_a_control_group() -> None:
    assert Limits().within(None) == Limits()
    limits = Limits().within(1000)
    assert (limits.soft, limits.hard) == (800, 920)
    assert Limits(soft=950).within(1000).hard is None
    assert Limits(hard=500).within(1000).soft == 435


@pytest.mark.parametrize("wrong", [{"soft": 0}, {"soft": 2, "hard": 2}, {"grace_s": float("inf")}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        Limits(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"soft": 600}, r"soft is 600: no worker is so small.*600MiB"),
        ({"hard": 0.5}, "hard is 0.5: no worker"),
        ({"hard": "900 apples"}, "hard is '900 apples': no number of bytes"),
        ({"soft": "2GiB", "hard": "1GiB"}, "soft .2 GiB. is not below hard"),
    ],
)
def test_a_limit_that_a_program_gives_wrongly_is_told(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        Limits.given(wrong.get("soft"), wrong.get("hard"), 600.0)


def test_a_limit_is_given_in_bytes_or_as_people_write_it() -> None:
    assert Limits.given("600MiB", 900 << 20, 1.0) == Limits(soft=600 << 20, hard=900 << 20, grace_s=1.0)


def test_back_off_doubles_for_short_lives_and_forgets_after_a_healthy_one() -> None:
    back_off = BackOff(first_s=1, max_s=5, healthy_s=30)
    assert [back_off.after(0.1, failed=True) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert back_off.after(31, failed=True) == 1
    assert back_off.after(0.1, failed=True) == 1
    assert back_off.after(2, failed=False) == 0
    assert [back_off.after(0.1, failed=False) for _ in range(2)] == [1, 2], "a worker that ends at once loops too"
