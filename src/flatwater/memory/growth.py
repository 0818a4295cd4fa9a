"""Which containers grow, and which types: samples of a process over a window, judged by their slopes.

:func:`observe` asks any target; :func:`growing` and :func:`growing_types` judge what it saw, and :func:`growth` does
both for this process. Addresses stay with the caller: reports name a container by its path.
"""

from __future__ import annotations

import os
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from flatwater.memory.slope import Slope, slope
from flatwater.memory.target import Here, Target

_STOPPED = 0.05  # the share of the window that the target may stand still for samples
_SAMPLES = 40  # more than this do not make a slope surer
_FEWEST = 6
_DEAR = 0.1  # of the window: looks that cost more than this are made three times only
_HELD = 64  # as many as the target holds
_HELD_OLD = 48  # of these at most so many that were there from the first look on
_FALL = 0.35  # a container that loses more than this part of what it gains is rebuilt or worked off, not leaking
_BUFFERS = {
    "bytearray",
    "_io.BytesIO",
    "_io.StringIO",
    "array.array",
    "mmap.mmap",
    "numpy.ndarray",
}  # their entries are bytes


class Track:
    """One container or type over the window: ``times`` in seconds, ``counts`` entries or objects, ``sizes`` bytes."""

    __slots__ = ("counts", "sizes", "times", "type")

    def __init__(self, type_name: str) -> None:
        # Arrays, for this process may be the one that is examined: a list that grows would be found.
        self.type = type_name
        self.times = array("d")
        self.counts = array("d")
        self.sizes = array("d")

    def add(self, at: float, count: float, size: float) -> None:
        self.times.append(at)
        self.counts.append(count)
        self.sizes.append(size)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen in ``seconds``: ``samples`` looks at the heap, which stopped the target for ``paused_s`` in all.

    ``containers`` by address, ``types`` by name, ``usage`` :class:`flatwater.memory.usage.Usage` as JSON with its time.
    ``missing`` says in words what could not be seen.
    """

    seconds: float
    samples: int
    paused_s: float
    times: Sequence[float]
    containers: dict[int, Track] = field(repr=False)
    types: dict[str, Track] = field(repr=False)
    usage: list[tuple[float, dict[str, Any]]] = field(repr=False)
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Growing:
    """A container that grows, or a buffer, whose entries are bytes.

    Entries now, entries per second with the 95 % interval, and estimated bytes per second.
    """

    address: int = field(repr=False)
    type: str
    length: int
    growth_per_s: float
    low: float
    high: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class GrowingType:
    """A type whose objects become more: how many now, how many more per second, and their own bytes per second."""

    type: str
    count: int
    growth_per_s: float
    low: float
    high: float
    bytes_per_s: float


class _Observer:
    def __init__(self, target: Target, on_look: Callable[[float], object] | None) -> None:
        self.target, self.on_look = target, on_look
        self.begun = time.monotonic()
        self.times = array("d")
        self.containers: dict[int, Track] = {}
        self.types: dict[str, Track] = {}
        self.usage: list[tuple[float, dict[str, Any]]] = []
        self.paused_s = 0.0
        self.min_length = 4

    def look(self) -> float:
        """Take one sample; what it cost the target, in seconds (of its time: a busy machine makes no heap dearer)."""
        at = time.monotonic() - self.begun
        self.usage.append((at, self.target.ask("usage", shares=False)))
        raw = self.target.ask("sample", min_length=self.min_length)
        if raw["found"] > len(raw["containers"]):  # too many small ones: leave them to the types
            self.min_length *= 2
        self.times.append(at)
        own = {id(self.containers), id(self.types), id(self.usage)} if self.target.pid == os.getpid() else set()
        for address, kind, length, size in raw["containers"]:
            if address not in own:
                track = self.containers.get(address)
                if track is None or track.type != kind:
                    track = self.containers[address] = Track(kind)
                track.add(at, length, size)
        self._count(at, raw["types"])
        self.paused_s += raw["pause_s"]
        if self.on_look is not None:
            self.on_look(at)
        return float(raw["cpu_s"])

    def _count(self, at: float, rows: list[list[Any]]) -> None:
        merged: dict[str, list[int]] = {}
        for name, count, size, _ in rows:
            into = merged.setdefault(name, [0, 0])
            into[0] += count
            into[1] += size
        for name, (count, size) in merged.items():
            self.types.setdefault(name, Track(name)).add(at, count, size)

    def prune(self) -> None:
        """Forget containers that are gone, so that a process that makes many does not fill this one."""
        last = self.times[-1]
        gone = [address for address, track in self.containers.items() if track.times[-1] < last]
        for address in gone:
            del self.containers[address]

    def look_often(self, end: float, interval_s: float | None, cost: float) -> None:
        """Walk the heap again and again: it is small enough."""
        seconds = end - self.begun
        wait = interval_s or max(seconds / _SAMPLES, min(cost / _STOPPED, seconds / _FEWEST))
        while (now := time.monotonic()) + wait / 2 <= end:
            time.sleep(min(_uneven(wait), max(end - now, 0.0)))
            self.look()
            self.prune()

    def look_seldom(self, end: float) -> None:
        """Walk the heap twice more, and meanwhile read the lengths of what grew until the first of these."""
        seconds = end - self.begun
        time.sleep(max(0.0, self.begun + seconds / 3 - time.monotonic()))
        self.look()
        self.prune()
        grown = self._candidates()
        self.target.ask("hold", addresses=grown)
        try:
            while time.monotonic() < end:
                time.sleep(min(_uneven(seconds / _SAMPLES), max(0.0, end - time.monotonic())))
                self._read(grown)
            self.look()
            self.prune()
        finally:
            self.target.ask("hold", addresses=[])

    def _candidates(self) -> list[int]:
        """Those that grew most between the two looks, and the longest of those that are new."""
        gains = {at: track.counts[-1] - track.counts[0] for at, track in self.containers.items()}
        old = sorted((at for at, gain in gains.items() if gain > 0), key=lambda at: -gains[at])[:_HELD_OLD]
        new = (at for at, track in self.containers.items() if len(track.counts) == 1)
        newest = sorted(new, key=lambda at: -self.containers[at].counts[0])
        return old + newest[: _HELD - len(old)]

    def _read(self, addresses: Sequence[int]) -> None:
        at = time.monotonic() - self.begun
        self.usage.append((at, self.target.ask("usage", shares=False)))
        for address, length in zip(addresses, self.target.ask("lengths"), strict=True):
            track = self.containers[address]
            if length is not None:
                track.add(at, length, track.sizes[-1])
        if self.on_look is not None:
            self.on_look(at)


def observe(
    target: Target,
    seconds: float,
    interval_s: float | None = None,
    missing: str = "",
    on_look: Callable[[float], object] | None = None,
) -> Observation:
    """Look at the target's heap again and again for ``seconds``. Blocks.

    Without ``interval_s`` it follows from what one look costs: the target stands still for some 5 % of the window.
    Where six looks are dearer than 10 % (heaps of millions of objects) there are three, and between them only the
    lengths of up to 64 containers that grew are read; the target holds these meanwhile. ``on_look`` hears of each look,
    right after it, the time by which it is known in the answer. Raises what ``target.ask`` raises.
    """
    observer = _Observer(target, on_look)
    end = observer.begun + seconds
    cost = observer.look()
    if interval_s is None and cost * _FEWEST > _DEAR * seconds:
        observer.look_seldom(end)
    else:
        observer.look_often(end, interval_s, cost)
    return Observation(
        time.monotonic() - observer.begun,
        len(observer.times),
        observer.paused_s,
        observer.times,
        observer.containers,
        observer.types,
        observer.usage,
        missing,
    )


def _uneven(seconds: float) -> float:
    """About so long: at even intervals what goes up and down as evenly could seem to rise."""
    return seconds * random.uniform(0.6, 1.4)  # noqa: S311 (no secret)


def growing(observation: Observation) -> list[Growing]:
    """The containers that grow steadily, the fastest in bytes first."""
    item_bytes = _item_bytes(observation)
    found = []
    for address, track in observation.containers.items():
        line = _steady(track.times, track.counts)
        if line is not None:
            own = max(_rate(track.times, track.sizes), 8.0 * line.per_s)
            rate = line.per_s if track.type in _BUFFERS else own + line.per_s * item_bytes
            found.append(Growing(address, track.type, int(track.counts[-1]), line.per_s, line.low, line.high, rate))
    return sorted(found, key=lambda row: -row.bytes_per_s)


def growing_types(observation: Observation) -> list[GrowingType]:
    """The types whose objects become more steadily, by their own bytes per second."""
    found = []
    for track in observation.types.values():
        line = _steady(track.times, track.counts) or _rough(track.times, track.counts)
        if line is not None and len(track.times) == observation.samples:
            size = _rate(track.times, track.sizes)
            found.append(GrowingType(track.type, int(track.counts[-1]), line.per_s, line.low, line.high, size))
    return sorted(found, key=lambda row: -row.bytes_per_s)


def growth(seconds: float, interval_s: float | None = None) -> list[Growing]:
    """The containers of this process that grow in the next ``seconds``. Blocks: in asyncio run it in a thread."""
    with Here() as here:
        return growing(observe(here, seconds, interval_s))


def _steady(times: Sequence[float], counts: Sequence[float]) -> Slope | None:
    """The line through the samples when it rises, all along and not only at first; else None."""
    if len(counts) < 5 or counts[-1] <= counts[0]:
        return None
    steps = [after - before for before, after in pairwise(counts)]
    gained = sum(step for step in steps if step > 0)
    lost = -sum(step for step in steps if step < 0)
    half = len(steps) // 2
    rises = sum(step > 0 for step in steps)
    if lost > _FALL * gained or rises < 3 or sum(steps[:half]) <= 0 or sum(steps[half:]) <= 0:
        return None
    line = slope(list(zip(times, counts, strict=True)))
    return line if line is not None and line.grows else None


def _rough(times: Sequence[float], counts: Sequence[float]) -> Slope | None:
    """Of three or four looks no interval can be told: the rates between them must agree within a factor of four."""
    if not 3 <= len(counts) < 5:
        return None
    rates = [
        (after - before) / (end - begin) for (begin, before), (end, after) in pairwise(zip(times, counts, strict=True))
    ]
    low, high = min(rates), max(rates)
    if low <= 0 or low * 4 < high:
        return None
    return Slope(_rate(times, counts), low, high, len(counts), times[-1] - times[0], float(len(counts)))


def _rate(times: Sequence[float], values: Sequence[float]) -> float:
    return (values[-1] - values[0]) / (times[-1] - times[0]) if len(times) > 1 else 0.0


def _item_bytes(observation: Observation) -> float:
    """What one more entry brings with it, on the average of all objects that became more: a guess to rank by."""
    rows = growing_types(observation)
    entries = sum(row.growth_per_s for row in rows)
    return sum(max(row.bytes_per_s, 0.0) for row in rows) / entries if entries else 0.0
