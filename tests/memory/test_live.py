"""The live views' figures, of real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from flatwater.memory.live import HeapWatch, ProcessRow, ProcessWatch, sparkline
from flatwater.memory.selector import parse
from flatwater.memory.target import Here

GROWING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
held = []
print(child.pid, flush=True)
try:
    while True:
        held.append(bytearray(1 << 18)); time.sleep(0.02)
finally:
    child.kill(); child.wait()
"""


@pytest.fixture
def parent() -> Iterator[tuple[int, int]]:
    """A process that grows by about 10 MB/s and its sleeping child."""
    process = subprocess.Popen([sys.executable, "-c", GROWING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process.pid, child
    process.send_signal(2)
    process.communicate(timeout=90)


def test_a_tree_with_its_slopes(parent: tuple[int, int]) -> None:
    watch = ProcessWatch(parse(str(parent[0])))
    deadline = time.monotonic() + 90
    rows: list[ProcessRow] = []
    while time.monotonic() < deadline and not (rows and rows[0].reach_s):
        rows = watch.look()
        time.sleep(0.1)
    top, below = rows
    assert (top.pid, top.depth, below.pid, below.depth) == (parent[0], 0, parent[1], 1)
    assert top.slope is not None
    assert top.slope.per_s > 1e6
    assert top.reach_s is not None
    assert 0 < top.reach_s < top.limit / 1e6
    assert top.pss
    assert len(top.history) >= 5
    assert "sleep(600)" in below.command


def test_what_has_ended_leaves() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = ProcessWatch(parse(str(process.pid)))
    assert len(watch.look()) == 1
    process.communicate(b"\n", timeout=90)
    assert watch.look() == []


class Pallet:
    """Something that grows."""


def test_types_and_containers_that_grow_come_first() -> None:
    yard: list[Pallet] = []
    with Here() as here:
        watch = HeapWatch(here)
        for _ in range(3):
            yard.extend(Pallet() for _ in range(2000))
            watch.look()
    first = watch.types()[0]
    assert first.name.endswith("Pallet")
    assert first.history == (2000, 4000, 6000)
    assert first.grown == 4000
    found = watch.containers(floor=1000)[0]
    assert (found.name, found.address, found.history) == ("list", id(yard), (2000, 4000, 6000))
    assert [row.name for row in watch.types(search="PALLET")] == [first.name]
    assert watch.types(floor=10**9) == []
    assert watch.cost_s > 0


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3], width=2) == "▁█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([]) == ""
