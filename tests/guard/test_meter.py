"""The meter in C and the one in Python do the same."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.guard import _meter as built  # type: ignore[attr-defined]  # without it this fails: it is to be there
from flatwater.guard import meter, meter_fallback
from flatwater.guard.gauge import Gauge
from flatwater.guard.meter_fallback import SIZE, SLOTS

M = 1 << 20
FIELDS = list(meter_fallback.Sums.__slots__)
BYTES = st.integers(0, 1 << 50)
CALL = st.tuples(st.floats(0, 1e6), BYTES, BYTES, BYTES, st.booleans(), st.booleans())
TEXT = st.text(st.characters(), max_size=200)  # with surrogates, which no file can hold
PUT = st.tuples(TEXT, TEXT | st.integers() | st.none())


@pytest.fixture(params=[built, meter_fallback], ids=["c", "python"])
def kind(request: pytest.FixtureRequest) -> ModuleType:
    assert isinstance(request.param, ModuleType)
    return request.param


@pytest.fixture
def gauge() -> Iterator[Gauge]:
    gauge = Gauge()
    yield gauge
    gauge.close()


class Bench:
    """A meter whose every task is like others, and its only row."""

    def __init__(self, kind: ModuleType, gauge: Any, *, slots: Any = None, stands_s: float = 0.0, inherited: int = 0):
        self.row = kind.Sums()
        self.meter = kind.Meter(gauge, slots, {"task": self.row}, inherited, stands_s, 1 << 40)
        self.meter.calm, self.meter.until = 1 << 50, float("inf")

    def counted(self) -> tuple[int, int, int]:
        return self.row.count, self.row.failed, self.row.alone


def touched(size: int) -> mmap.mmap:
    """Memory that nobody had before: the heap may have some to spare."""
    memory = mmap.mmap(-1, size)
    memory.write(b"x" * size)
    return memory


def test_the_one_in_c_is_taken() -> None:
    assert meter.Meter is built.Meter


def test_without_it_the_one_in_python_is() -> None:
    code = (
        "import sys; sys.modules['flatwater.guard._meter'] = None\n"
        "from flatwater.guard import meter, meter_fallback\n"
        "assert meter.Meter is meter_fallback.Meter"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.lists(CALL))
def test_sums_are_the_same(calls: list[tuple[float, int, int, int, bool, bool]]) -> None:
    sums = [built.Sums(), meter_fallback.Sums()]
    for call in calls:
        for one in sums:
            one.add(*call)
    first, second = ([getattr(one, field) for field in FIELDS] for one in sums)
    assert first == second


@given(st.lists(st.one_of(PUT, st.integers(0, 80)), max_size=150))
def test_slots_are_the_same(steps: list[Any]) -> None:
    """A tuple begins a task, a number ends one of those that run."""
    first = 7
    maps = [mmap.mmap(-1, first + SLOTS * SIZE) for _ in range(2)]
    both = [kind.Slots(map, first) for kind, map in zip((built, meter_fallback), maps, strict=True)]
    running: list[int] = []
    for step in steps:
        if isinstance(step, tuple):
            slot, other = (one.put(*step) for one in both)
            assert slot == other
            running += [slot] if slot >= 0 else []
        elif running:
            slot = running.pop(step % len(running))
            for one in both:
                one.clear(slot)
        assert written(maps[0], first) == written(maps[1], first)
    assert both[0].skipped == both[1].skipped
    for one, map in zip(both, maps, strict=True):
        one.release()
        assert one.put("late", "1") == -1
        one.clear(first)
        map.close()


def written(map: mmap.mmap, first: int) -> list[tuple[bytes, bytes]]:
    """Id and name of each task in flight."""
    slots = [slot for slot in range(first, len(map), SIZE) if map[slot]]
    return [(pascal(map, slot + 9), pascal(map, slot + 9 + 64)) for slot in slots]


def pascal(data: mmap.mmap, at: int) -> bytes:
    return bytes(data[at + 1 : at + 1 + data[at]])


def test_a_map_that_is_too_small_is_refused(kind: ModuleType) -> None:
    with mmap.mmap(-1, SLOTS * SIZE) as map:
        with pytest.raises(ValueError, match="too small"):
            kind.Slots(map, 1)
        kind.Slots(map, 0).release()


def test_a_task_is_measured_and_booked(kind: ModuleType, gauge: Gauge) -> None:
    bench = Bench(kind, gauge)
    meter = bench.meter
    before = time.monotonic()
    call = meter.open("task", "1", True)
    kept = touched(32 * M)
    assert meter.shut(call, False)
    assert before <= call.began <= call.ended <= time.monotonic()
    assert abs(call.after - call.before - 32 * M) < 4 * M
    assert call.peak >= call.after == meter.level
    assert (call.number, meter.begun, meter.ended, call.alone) == (1, 1, 1, True)
    assert bench.counted() == (1, 0, 1)
    assert meter.shut(meter.open("task", "2", True), True)
    assert bench.counted() == (2, 1, 2)
    assert abs(bench.row.retained - 32 * M) < 4 * M
    assert bench.row.total_s >= bench.row.max_s >= call.ended - call.began
    kept.close()


def test_who_overlaps_is_not_alone(kind: ModuleType, gauge: Gauge) -> None:
    bench = Bench(kind, gauge)
    first = bench.meter.open("task", "1", True)
    second = bench.meter.open("task", "2", False)
    assert bench.meter.shut(first, False)
    assert bench.meter.shut(second, False)
    assert (first.alone, second.alone) == (False, False)
    assert bench.counted() == (2, 0, 0)


@pytest.mark.parametrize(
    ("field", "value"), [("calm", 0), ("until", 0.0), ("mark", None), ("name", "another")], ids=lambda one: str(one)
)
def test_what_is_not_of_every_task_is_left_to_the_caller(
    kind: ModuleType, gauge: Gauge, field: str, value: Any
) -> None:
    bench = Bench(kind, gauge)
    call = bench.meter.open("another" if field == "name" else "task", "1", True)
    if field == "mark":
        bench.meter = kind.Meter(gauge, None, {"task": bench.row}, 0, 0.0, -(1 << 50))  # every peak is a spike
        bench.meter.calm, bench.meter.until = 1 << 50, float("inf")
        call = bench.meter.open("task", "1", True)
    elif field != "name":
        setattr(bench.meter, field, value)
    assert not bench.meter.shut(call, False)
    assert call.after > 0
    assert bench.meter.ended == 1
    assert bench.counted() == (0, 0, 0)


def test_a_reading_stands_for_those_that_touch_nothing() -> None:
    """In Python, where readings can be counted; of the one in C test_gauge shows what comes of them."""

    class Counting(Gauge):
        readings = 0

        def usage(self) -> tuple[int, int]:
            return self.peak(), 7  # no page is ever touched

        def rss(self) -> int:
            self.readings += 1
            return super().rss()

    gauge = Counting()
    bench = Bench(meter_fallback, gauge, stands_s=3600)
    for number in range(10):
        bench.meter.shut(bench.meter.open("task", str(number), True), False)
    assert gauge.readings == 2, "the first level, and the first end of this thread"
    gauge.close()


def test_a_thread_that_touched_pages_is_read_and_no_other_hides_it(kind: ModuleType, gauge: Gauge) -> None:
    bench = Bench(kind, gauge, stands_s=3600)
    kept = []
    for number in range(8):
        call = bench.meter.open("task", str(number), True)
        kept.append(touched(M))
        thread = threading.Thread(target=lambda: bench.meter.shut(bench.meter.open("task", "x", False), False))
        thread.start()
        thread.join()
        bench.meter.shut(call, False)
    assert abs(bench.meter.level - gauge.rss()) < M
    for memory in kept:
        memory.close()


def test_a_maximum_that_was_inherited_is_asked_of_the_gauge(kind: ModuleType) -> None:
    class Told(Gauge):
        def peak(self) -> int:
            return 5 << 40

        def usage(self) -> tuple[int, int]:
            return self.peak(), super().usage()[1]

    gauge = Told()
    bench = Bench(kind, gauge, inherited=1 << 50)
    call = bench.meter.open("task", "1", True)
    assert call.mark == 5 << 40
    gauge.close()


def test_tasks_in_flight_are_written_and_wiped(kind: ModuleType, gauge: Gauge) -> None:
    with mmap.mmap(-1, SLOTS * SIZE) as map:
        slots = kind.Slots(map, 0)
        bench = Bench(kind, gauge, slots=slots)
        calls = [bench.meter.open("task", str(number), False) for number in range(SLOTS + 1)]
        assert [map[call.slot] for call in calls[:-1]] == [1] * SLOTS
        assert calls[-1].slot == -1
        bench.meter.drop(calls[0])
        bench.meter.shut(calls[1], False)
        bench.meter.shut(calls[0], False)  # dropped before: its slot may be another's by now
        assert sum(map[number * SIZE] for number in range(SLOTS)) == SLOTS - 2
        assert bench.meter.open("task", "again", False).slot >= 0
        slots.release()


def test_nothing_is_left_behind(kind: ModuleType, gauge: Gauge) -> None:
    with mmap.mmap(-1, SLOTS * SIZE) as map:
        bench = Bench(kind, gauge, slots=kind.Slots(map, 0))
        names = ["".join(["ta", "sk"]) for _ in range(2)]
        bench.meter.shut(bench.meter.open(names[0], names[1], True), False)
        before = [sys.getrefcount(name) for name in names]
        for _ in range(1000):
            bench.meter.shut(bench.meter.open(names[0], names[1], True), False)
        assert [sys.getrefcount(name) for name in names] == before
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(100):
            kind.Meter(gauge, None, {}, 0, 0.0, 0).open("task", "1", True)
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        bench.meter.close()
        bench.meter.close()
        del bench


@pytest.mark.parametrize(
    "wrong",
    [
        "Meter()", "Meter(1, 2, 3, 4, 5, 6)", "Meter(1, None, {}, 'a', 0.0, 0)", "Slots()", "Slots(b'', 0)",
        "Slots(bytearray(9), -1)", "Slots(bytearray(20000), 1 << 40)", "Sums().add()", "Sums().add(1, 2, 3, 4, 5)",
        "Sums().add('a', 2, 3, 4, True, True)", "Slots(bytearray(20000), 0).clear('a')",
        "Slots(bytearray(20000), 0).put('a')", "Meter(1, None, {}, 0, 0.0, 0).shut(1, 2)",
        "Meter(1, None, {}, 0, 0.0, 0).open('a')", "Meter(1, None, {}, 0, 0.0, 0).drop(None)", "type(call)()",
        "Meter(1, None, {}, 1 << 50, 0.0, 0).open('a', 'b', True)", "Slots(bytearray(20000), 0).clear(19999)",
    ],
)  # fmt: skip
def test_wrong_use_is_an_error_and_no_crash(gauge: Gauge, wrong: str) -> None:
    call = Bench(built, gauge).meter.open("task", "1", True)
    with pytest.raises((TypeError, ValueError, OverflowError, BufferError, AttributeError)):
        eval(wrong, vars(built) | {"call": call})
