"""The slope and its confidence interval: right on known lines, humble on walks."""

from __future__ import annotations

import random

import pytest

from flatwater.memory.slope import slope


def test_too_little_says_nothing() -> None:
    assert slope([]) is None
    assert slope([(float(i), 1.0) for i in range(4)]) is None
    assert slope([(5.0, float(i)) for i in range(10)]) is None


def test_exact_line() -> None:
    found = slope([(100.0 + i, 7.0 + 3.0 * i) for i in range(50)])
    assert found is not None
    assert found.per_s == pytest.approx(3.0)
    assert found.low == pytest.approx(3.0)
    assert found.high == pytest.approx(3.0)
    assert found.grows
    assert found.window_s == 49.0
    assert found.reaches(limit=1000.0, now=400.0) == pytest.approx(200.0)


def test_constant_does_not_grow() -> None:
    found = slope([(float(i), 5e7) for i in range(100)])
    assert found is not None
    assert (found.per_s, found.grows) == (0.0, False)
    assert found.reaches(1e9, 5e7) is None


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(1)
    hits = 0
    for _ in range(400):
        found = slope([(float(i), 0.5 * i + rng.gauss(0, 20)) for i in range(60)])
        assert found is not None
        hits += found.low <= 0.5 <= found.high
    assert 0.92 * 400 <= hits <= 400


def test_correlated_noise_is_not_taken_for_growth_as_often_as_by_plain_least_squares() -> None:
    rng = random.Random(2)
    alarms = plain = 0
    for _ in range(300):
        level, points = 0.0, []
        for i in range(120):
            level = 0.8 * level + rng.gauss(0, 1)
            points.append((float(i), level))
        found = slope(points)
        assert found is not None
        alarms += found.grows
        factor = (found.effective / found.samples) ** 0.5
        plain += found.per_s - (found.per_s - found.low) * factor > 0
    assert alarms < plain / 2
    assert alarms < 0.08 * 300


def test_a_leak_under_noise_is_found() -> None:
    rng = random.Random(3)
    found = slope([(5.0 * i, 6e7 + 2000 * 5.0 * i + rng.gauss(0, 300_000)) for i in range(720)])
    assert found is not None
    assert found.grows
    assert found.low < 2000 < found.high
