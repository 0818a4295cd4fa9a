"""Gathers what the verdict rests on: the kernel's figures from outside, the process's own through its target."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flatwater.memory import control_group
from flatwater.memory.growth import Observation
from flatwater.memory.heap_model import Census
from flatwater.memory.mapping import Mappings, mappings
from flatwater.memory.verdict import Evidence, Inner, Point

_PAGE = os.sysconf("SC_PAGE_SIZE")
INTERVAL_S = 0.1
MAX_POINTS = 6000
SMALL = 512
"""pymalloc serves requests up to this many bytes."""


def look(pid: int, begun: float, *, root: Path = Path("/")) -> Point:
    """The kernel's figures now; ``at`` counts from ``begun`` (monotonic). Raises ProcessLookupError."""
    try:
        text = (root / f"proc/{pid}/status").read_text("utf-8", "replace")
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    rows = {name: rest.split() for name, _, rest in (line.partition(":") for line in text.splitlines())}

    def size(name: str) -> int:
        return int(rows[name][0]) * 1024 if name in rows else 0

    return Point(
        at=time.monotonic() - begun,
        rss=size("VmRSS"),
        anon=size("RssAnon") + size("RssShmem") if "RssAnon" in rows else None,
        file=size("RssFile") if "RssFile" in rows else None,
        vms=size("VmSize"),
        threads=int(rows["Threads"][0]) if "Threads" in rows else 0,
    )


def name_of(pid: int, *, root: Path = Path("/")) -> str:
    """The name that the kernel has for it; never its arguments, which may hold secrets."""
    try:
        return (root / f"proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


class Outside:
    """Looks at a process from outside each ``interval_s``, in a thread, while it is entered."""

    def __init__(self, pid: int, interval_s: float = INTERVAL_S, max_points: int = MAX_POINTS) -> None:
        self.points: list[Point] = []
        self._pid = pid
        self._interval_s = interval_s
        self._max_points = max_points
        self._begun = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flatwater-look", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while len(self.points) < self._max_points:
            try:
                self.points.append(look(self._pid, self._begun))
            except (ProcessLookupError, OSError):  # whoever asks the process next says that it is gone
                return
            if self._end.wait(self._interval_s):
                return


def inner(observation: Observation) -> tuple[Inner, ...]:
    """The process's own figures of each look."""
    objects = [0.0] * len(observation.times)
    place = {at: index for index, at in enumerate(observation.times)}
    for track in observation.types.values():
        for at, count in zip(track.times, track.counts, strict=True):
            objects[place[at]] += count
    made: list[Inner] = []
    for at, usage in observation.usage:
        malloc, collector = usage["malloc"], usage["collector"]
        made.append(
            Inner(
                at=at,
                blocks=usage["blocks"],
                used=malloc["used"] + malloc["mapped"] if malloc else None,
                free=malloc["free"] if malloc else None,
                objects=int(objects[place[at]]) if at in place else made[-1].objects if made else 0,
                frozen=collector["frozen"],
                full_collections=collector["collections"][-1],
            )
        )
    return tuple(made)


def pinned(mapped: Mappings | None, census: Census | None, malloc: dict[str, int] | None, blocks: int) -> int:
    """What anonymous mappings keep resident beyond malloc's large blocks and the objects in Python's arenas,"
    " in bytes."""
    if mapped is None or census is None:
        return 0
    small = sum(row.bytes for row in census.types if row.count and row.bytes / row.count <= SMALL)
    return max(0, mapped.anonymous - (malloc["mapped"] if malloc else 0) - max(small, blocks * 48))


def returnable(mapped: Mappings | None, malloc: dict[str, int] | None) -> int:
    """malloc's free memory that is resident, in bytes: what a trim could return at most."""
    if mapped is None or malloc is None:
        return 0
    return max(0, min(malloc["free"], mapped.heap + mapped.arenas - malloc["used"]))


class Room:
    """What a process may use: ``limit`` bytes, how many are left, and whose limit it is."""

    def __init__(self, pid: int) -> None:
        group = control_group.of(pid)
        if group is not None and group.limit is not None:
            self.limit, self.name = group.limit, f"control group {group.path}"
            self.headroom = max(0, group.limit - (group.held or 0))
            return
        rows = {
            name: int(rest.split()[0]) * 1024
            for name, _, rest in (line.partition(":") for line in Path("/proc/meminfo").read_text("ascii").splitlines())
            if rest.split() and rest.split()[0].isdigit()
        }
        self.limit, self.name = rows.get("MemTotal", 0), "machine"
        self.headroom = rows.get("MemAvailable", rows.get("MemFree", 0))


class Ends:
    """What is measured at the window's two ends: all objects, and the mappings. ``full`` is too dear for huge heaps."""

    def __init__(self, census: Census | None, mapped: Mappings | None, usage: dict[str, Any]) -> None:
        self.census = census
        self.mapped = mapped
        self.usage = usage
        self.at = time.monotonic()

    @property
    def malloc(self) -> dict[str, int] | None:
        found: dict[str, int] | None = self.usage["malloc"]
        return found

    @property
    def pinned(self) -> int:
        return pinned(self.mapped, self.census, self.malloc, self.usage["blocks"])


def ends(pid: int, census: Census | None, usage: dict[str, Any]) -> Ends:
    """One end of the window, now."""
    return Ends(census, mappings(pid), usage)


def assemble(
    points: list[Point],
    observation: Observation,
    begin: Ends,
    end: Ends,
    growing: Sequence[object],
    room: Room,
    *,
    container_per_s: float,
    payload_per_s: float = 0.0,
    filling_per_s: float = 0.0,
    foreign: bool = False,
    garbage: tuple[int, int] = (0, 0),
) -> Evidence:
    """Evidence of all that was measured; ``garbage`` is (bytes, objects), ``container_per_s`` retained bytes."""
    collector = end.usage["collector"]
    before = begin.census.bytes if begin.census is not None else 0
    after = end.census.bytes if end.census is not None and begin.census is not None else before
    if before == 0:  # no full census: what containers and collected objects weigh must do
        tracks = [track for track in observation.types.values() if len(track.times) == observation.samples]
        before = int(sum(track.sizes[0] for track in tracks))
        after = int(sum(track.sizes[-1] for track in tracks))
    return Evidence(
        window_s=max(observation.seconds, end.at - begin.at),
        points=tuple(points),
        inner=inner(observation),
        object_bytes=(before, after),
        container_per_s=container_per_s,
        containers=len(growing),
        payload_per_s=payload_per_s,
        filling_per_s=filling_per_s,
        foreign=foreign,
        garbage=garbage[0],
        garbage_count=garbage[1],
        collector=collector["enabled"],
        thresholds=tuple(collector["thresholds"]),
        pinned=(begin.pinned, end.pinned),
        returnable=returnable(end.mapped, end.malloc),
        limit=room.limit,
        headroom=room.headroom,
        limit_of=room.name,
    )
