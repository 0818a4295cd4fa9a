"""The meter in Python: what ``_meter.c`` does, where no compiler was there to build it. See ``meter.py``."""

from __future__ import annotations

import struct
import threading
from mmap import mmap
from time import monotonic, time
from typing import Any

from flatwater.guard.gauge import Gauge

SLOTS = 64
TASK, NAME = struct.Struct("<d64p"), struct.Struct("180p")  # since, id; name
SIZE = 1 + TASK.size + NAME.size  # of a slot; the byte before is 1 while the task runs


class Slots:
    """64 slots of a writable map, from the byte ``first``; ``skipped`` counts tasks that were not written.

    Raises ValueError when the map is too small.
    """

    def __init__(self, map: mmap, first: int) -> None:
        if first < 0 or len(map) < first + SLOTS * SIZE:
            raise ValueError("the map is too small for the slots")
        self._map: mmap | None = map
        self._free = [first + number * SIZE for number in range(SLOTS)]
        self._names = dict.fromkeys(self._free, "")  # what is written there
        self.skipped = 0

    def put(self, name: str, id: str) -> int:
        """The slot of a task that begins now; -1 when all are taken, or the map was let go of."""
        if self._map is None:
            return -1
        if not self._free:
            self.skipped += 1
            return -1
        slot = self._free[-1]
        try:
            TASK.pack_into(self._map, slot + 1, time(), id.encode())
            if self._names[slot] != name:  # mostly the one before it was of the same name
                NAME.pack_into(self._map, slot + 1 + TASK.size, name.encode())
                self._names[slot] = name
        except (UnicodeError, AttributeError):  # a broken character, an id that is no text: the task is to run
            self.skipped += 1
            return -1
        self._free.pop()
        self._map[slot] = 1  # last: who is killed before has not begun the task
        return slot

    def clear(self, slot: int) -> None:
        """The task of the slot has ended."""
        if slot >= 0 and self._map is not None:
            self._map[slot] = 0
            self._free.append(slot)

    def release(self) -> None:
        """Let go of the map, so that it can be closed."""
        self._map = None


class Sums:
    """What is known of a task name's calls: see ``Row``."""

    __slots__ = (
        "alone", "calls", "closed_alone", "closed_retained", "count", "failed", "max_s", "peak", "retained", "rise",
        "total_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.count = self.failed = self.peak = self.rise = self.alone = self.retained = 0
        self.calls = 0  # ended in the open interval
        self.closed_alone = self.closed_retained = 0  # when the last interval was closed
        self.total_s = self.max_s = 0.0

    def add(self, seconds: float, before: int, after: int, peak: int, alone: bool, failed: bool) -> None:
        """A task has ended; levels in bytes."""
        self.count += 1
        self.calls += 1
        self.total_s += seconds
        if failed:
            self.failed += 1
        if seconds > self.max_s:
            self.max_s = seconds
        if peak > self.peak:
            self.peak = peak
        if peak - before > self.rise:
            self.rise = peak - before
        if alone:
            self.alone += 1
            self.retained += after - before


class Call:
    """A task in flight: its begin and end by the monotonic clock, levels in bytes before, after and at most.

    ``mark`` is the highest level at its begin, ``alone`` whether no other task ran meanwhile, ``number`` how many had
    begun with it, ``slot`` where its flight is written.
    """

    __slots__ = ("after", "alone", "before", "began", "ended", "id", "mark", "name", "number", "peak", "slot")

    def __init__(self, name: str, id: str, began: float, before: int, mark: int, alone: bool, number: int) -> None:
        self.name, self.id, self.began, self.before, self.mark = name, id, began, before, mark
        self.ended, self.after, self.peak = began, before, before
        self.alone, self.number, self.slot = alone, number, -1


class Meter:
    """Measures tasks: ``open`` at their begin, ``shut`` at their end, in their thread.

    A reading of the level takes as long as all the rest. It stands for ``stands_s`` seconds for what comes after it,
    unless the task's thread has touched pages anew since then; that memory was given back meanwhile is seen late, and
    booked to a neighbor. ``level`` and ``mark`` are the last reading and the highest RSS, in bytes.

    The end of a task is booked in ``rows`` when nothing else is to be done: the level is below ``calm``, the peak not
    above it by more than ``spike`` bytes, the open interval ends later (``until``), and there is a row of its name.
    The kernel passes a maximum on to a program that is executed: ``inherited`` says which one.
    """

    def __init__(
        self, gauge: Gauge, slots: Slots | None, rows: dict[str, Sums], inherited: int, stands_s: float, spike: int
    ) -> None:
        self._gauge, self._slots, self._rows = gauge, slots, rows
        self._stands_s, self._spike = stands_s, spike
        self._read_at = -float("inf")
        self._touched: Any = threading.local()  # its page faults at its last reading
        self.until = -float("inf")
        self.level = self.mark = self.begun = self.ended = self.calm = 0

    def open(self, name: str, id: str, alone: bool) -> Call:
        """A task begins; ``alone`` when no other runs."""
        now, gauge = monotonic(), self._gauge
        if now - self._read_at > self._stands_s:
            self.level, self.mark, self._read_at = gauge.rss(), gauge.peak(), now
        self.begun += 1
        call = Call(name, id, now, self.level, self.mark, alone, self.begun)
        if self._slots is not None:
            call.slot = self._slots.put(name, id)
        return call

    def shut(self, call: Call, failed: bool) -> bool:
        """The task has ended. False: it is measured, and not yet booked."""
        self.drop(call)
        now, (mark, faults) = monotonic(), self._gauge.usage()
        if now - self._read_at > self._stands_s or getattr(self._touched, "faults", -1) != faults:
            self.level, self._read_at, self._touched.faults = self._gauge.rss(), now, faults
        call.ended, call.after = now, self.level
        call.peak = max(mark if mark > call.mark else call.peak, call.after)
        call.alone = call.alone and call.number == self.begun
        self.mark = mark
        self.ended += 1
        if call.after >= self.calm or mark - call.after > self._spike or now >= self.until:
            return False
        sums = self._rows.get(call.name)
        if sums is None:
            return False
        sums.add(now - call.began, call.before, call.after, call.peak, call.alone, failed)
        return True

    def close(self) -> None:
        """Measure no more. Closing twice is allowed."""

    def drop(self, call: Call) -> None:
        """The task is gone, and nobody told its end."""
        if self._slots is not None:
            self._slots.clear(call.slot)
        call.slot = -1
