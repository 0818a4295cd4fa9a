"""What is read around each task: the level, its peak, and the tasks in flight that outlive a kill."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

from flatwater.guard.flight import FlightFile, dead, read
from flatwater.guard.gauge import Gauge
from flatwater.guard.policy import Limits
from flatwater.guard.worker import Worker
from flatwater.memory import procfs

MIB = 1 << 20


def test_level_and_peak_are_the_kernels() -> None:
    gauge = Gauge()
    try:
        held = bytearray(b"x" * (40 * MIB))
        assert abs(gauge.rss() - procfs.memory(shares=False).rss) < 4 * MIB
        private = procfs.memory().uss
        assert private is not None
        assert abs(gauge.private() - private) < 4 * MIB
        high = gauge.rss()
        del held
        assert gauge.peak() >= high
        gauge.reset_peak()
        assert gauge.peak() < high - 30 * MIB
    finally:
        gauge.close()
        gauge.close()


def test_a_peak_below_the_parents_is_seen() -> None:
    """A program that is executed starts with the maximum of the process that started it."""
    held = bytearray(b"x" * (150 * MIB))
    program = (
        "from flatwater.guard.gauge import Gauge\n"
        "gauge = Gauge(); gauge.reset_peak(); before = gauge.peak()\n"
        "held = bytearray(b'x' * (30 << 20)); del held\n"
        "print(gauge.peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(held)
    assert 25 * MIB < int(done.stdout) < 80 * MIB


def test_each_task_has_its_own_peak_and_what_it_keeps() -> None:
    kept: list[bytearray] = []
    worker = Worker("test", limits=Limits(), on_recycle=print, collect=False)
    for name, spike, keep in (("spike", 60, 0), ("small", 0, 0), ("keeper", 0, 20), ("small", 0, 0)):
        worker.begin(name, "1")
        bytearray(b"x" * (spike * MIB))
        kept.append(bytearray(b"x" * (keep * MIB)))
        worker.end()
    worker.close()
    rows = {row.name: row for row in worker.rows()}
    assert rows["spike"].rise >= 55 * MIB
    assert rows["small"].rise < 10 * MIB, "a task does not inherit the peak of the one before"
    assert (rows["keeper"].retained or 0) >= 19 * MIB
    assert abs(rows["spike"].retained or 0) < 10 * MIB
    assert rows["small"].count == rows["small"].alone == 2


def test_tasks_that_overlap_are_not_alone() -> None:
    worker = Worker("test", limits=Limits(), on_recycle=print)
    first = worker._open("first", "1")
    worker._running[1] = first
    worker.begin("second", "2")
    worker.end()
    del worker._running[1]
    worker._shut(first, failed=False)
    worker.begin("third", "3")
    worker.end()
    worker.close()
    assert {row.name: row.alone for row in worker.rows()} == {"first": 0, "second": 0, "third": 1}


def test_flights_outlive_a_kill_and_those_that_landed_do_not(tmp_path: Path) -> None:
    kind = "celery:" + "a long name of an app " * 8
    program = (
        "import os, signal, sys; from pathlib import Path; from flatwater.guard.flight import FlightFile\n"
        f"flights = FlightFile(Path(sys.argv[1]), {kind!r})\n"
        "landed = flights.put('landed', '1'); flights.put('é' * 200, '2'); flights.clear(landed)\n"
        "flights.put('flies', '0198c1f2-7d3a-7000-8000-00aa11bb22cc')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    ((_, path),) = dead(tmp_path)
    flights = {flight.name: flight for flight in read(path)}
    assert set(flights) == {"flies", "é" * 89}, "cut between two characters"
    assert flights["flies"].id == "0198c1f2-7d3a-7000-8000-00aa11bb22cc"
    assert {flight.kind for flight in flights.values()} == {kind}
    assert read(tmp_path / "none") == ()


def test_more_flights_than_slots_are_counted(tmp_path: Path) -> None:
    flights = FlightFile(tmp_path, "test")
    slots = [flights.put("task", str(number)) for number in range(70)]
    assert slots[64:] == [-1] * 6
    assert flights.slots.skipped == 6
    for slot in slots:
        flights.clear(slot)
    assert not read(flights.path)
    assert flights.put("task", "1") >= 0
    flights.close()
    assert not dead(tmp_path)
    assert str(os.getpid()) not in "".join(path.name for path in tmp_path.iterdir())


def test_quick_tasks_are_told_apart_although_the_level_is_not_read_after_each() -> None:
    kept: list[mmap.mmap] = []  # a heap may have room to spare
    worker = Worker("test", limits=Limits(), on_recycle=print, collect=False)
    for _ in range(300):
        for name, keep in (("keeper", 256 << 10), ("idle", 0)):
            worker.begin(name, "1")
            if keep:
                kept.append(mmap.mmap(-1, keep))
                kept[-1].write(b"x" * keep)
            worker.end()
    worker.close()
    rows = {row.name: row for row in worker.rows()}
    assert abs((rows["keeper"].retained or 0) - (256 << 10)) < 64 << 10
    assert abs(rows["idle"].retained or 0) < 32 << 10
