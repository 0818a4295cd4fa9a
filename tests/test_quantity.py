"""Sizes and durations: what is written reads back, and what people write is understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.quantity import DURATIONS, SIZES, duration, exact, measure, rate, size

KIB = 1024


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("512 KiB", "bytes", 512 * KIB),
        ("1.5MiB", "bytes", 1.5 * KIB**2),
        (" 17 ", "bytes", 17),
        ("17B", "bytes", 17),
        ("2 gib", "bytes", 2 * KIB**3),
        ("600m", "bytes", 600 * KIB**2),
        ("2 MB", "bytes", 2_000_000),
        ("10m", "seconds", 600.0),
        ("10 min", "seconds", 600.0),
        ("250 ms", "seconds", 0.25),
        ("7d", "seconds", 604_800.0),
        ("0.5", "seconds", 0.5),
    ],
)
def test_read(text: str, unit: str, value: float) -> None:
    assert measure(text, unit) == value


@pytest.mark.parametrize("text", ["", "MiB", "-1 MiB", "2 MiB/s", "1 KiB 2", "1e9", "nan", "0x10", "٣"])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="KiB"):
        measure(text, "bytes")
    with pytest.raises(ValueError, match="10m"):
        measure(text, "seconds")


def test_what_is_no_text_passes_through() -> None:
    assert measure(5, "bytes") == 5
    assert measure(["5m"], "seconds") == ["5m"]
    assert measure("5m", "") == "5m"
    with pytest.raises(ValueError, match="finite"):
        measure(float("inf"), "seconds")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1 KiB"),
        (1023 * KIB, "1023 KiB"),
        (1.5 * KIB**2, "1.5 MiB"),
        (3.25 * KIB**4, "3.25 TiB"),
        (-2048, "-2 KiB"),
    ],
)
def test_size(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25 s"), (45, "45 s"), (720, "12 min"), (12_600, "3.5 h"), (708_480, "8.2 days")]
)
def test_duration(value: float, text: str) -> None:
    assert duration(value) == text


def test_rate() -> None:
    assert (rate(3 * KIB**2), rate(-(KIB**2) / 60), rate(0.0)) == ("+3 MiB/s", "-1 MiB/min", "+0 B/h")


@given(st.integers(0, 2**50))
def test_sizes_read_back(value: int) -> None:
    assert measure(exact(value, "bytes"), "bytes") == value
    assert measure(size(value), "bytes") == pytest.approx(value, rel=0.006)


@given(st.floats(0, 1e9) | st.integers(0, 10**9))
def test_durations_read_back(value: float) -> None:
    assert measure(exact(value, "seconds"), "seconds") == value


@given(st.floats(1e-4, 1e9))
def test_durations_in_three_figures_read_back(value: float) -> None:
    assert measure(duration(value), "seconds") == pytest.approx(value, rel=0.006)


@given(st.floats(0, 1e6), st.sampled_from(["bytes", "seconds"]), st.data())
def test_the_case_and_the_space_do_not_matter(number: float, kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SIZES if kind == "bytes" else DURATIONS)))
    text = f"{number:f}"
    assert measure(f"{text} {name.upper()} ", kind) == measure(f"{text}{name}", kind)
