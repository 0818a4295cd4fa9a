"""How often a worker is measured: what a measure costs, how near the limits are, what RSS says in between."""

from __future__ import annotations

import pytest

from flatwater.guard.pace import Pace
from flatwater.guard.policy import Limits

MIB = 1 << 20
LIMITS = Limits(soft=1000 * MIB, hard=2000 * MIB)


def looks(level: int, cost_s: float, *, over_s: float = 20.0, limits: Limits = LIMITS) -> float:
    """How many there are per second, if it is asked a hundred times a second."""
    pace, count = Pace(limits, clock=lambda: 0.0), 0
    for step in range(int(over_s * 100)):
        now = step / 100
        if pace.due(now, lambda: level):
            count += 1
            pace.measured(now, level, level, cost_s)
    return count / over_s


def test_what_is_cheap_is_measured_at_each_tick_and_no_more_often() -> None:
    assert looks(100 * MIB, 0.001) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("level", "share"), [(100 * MIB, 0.01), (900 * MIB, 0.1), (1900 * MIB, 0.1), (2100 * MIB, 0.5)]
)
def test_what_is_dear_takes_its_share_of_the_time(level: int, share: float) -> None:
    cost_s = 0.15
    assert looks(level, cost_s, over_s=60) * cost_s == pytest.approx(share, rel=0.3)


def test_what_costs_seconds_is_still_measured() -> None:
    assert looks(100 * MIB, 5.0, over_s=121) * 121 == pytest.approx(5, abs=1)


def test_a_rise_of_rss_by_half_of_the_room_is_measured_before_its_time() -> None:
    pace = Pace(LIMITS, clock=lambda: 0.0)
    pace.measured(0.0, 400 * MIB, 500 * MIB, 0.1)
    assert not pace.due(2.0, lambda: 799 * MIB)
    assert not pace.due(2.1, lambda: 801 * MIB), "RSS is not read more often than at each tick"
    assert pace.due(2.25, lambda: 801 * MIB)


def test_reading_rss_takes_its_share_as_well() -> None:
    reads, ticks = [0], iter(range(10**6))
    pace = Pace(LIMITS, clock=lambda: next(ticks) * 0.02)  # 20 ms each
    pace.measured(0.0, 10 * MIB, 10 * MIB, 0.29)

    def rss() -> int:
        reads[0] += 1
        return 10 * MIB

    for step in range(2800):
        assert not pace.due(step / 100, rss)
    assert reads[0] <= 15, "each 2 s"


def test_without_limits_nothing_is_read_between_two_measures() -> None:
    pace = Pace(Limits(), clock=lambda: 0.0)
    pace.measured(0.0, 10 * MIB, 10 * MIB, 0.1)

    def never() -> int:
        raise AssertionError

    assert not pace.due(5.0, never)
    assert pace.due(10.0, never)
