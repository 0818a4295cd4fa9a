"""The always-on sampler: which lines allocated what is alive now, estimated from a sample of Python's allocations.

Off until it is started (``FLATWATER_SAMPLE_BYTES``, ``server.sample_allocations_bytes``, :func:`start`). Its memory is
bounded whatever the program does; when its table is full it samples half as densely. Commands of the agent are
registered by :mod:`flatwater.memory.command`. Standard library and C extension only.
"""

from __future__ import annotations

import atexit
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from flatwater.memory import heap
from flatwater.memory.heap_model import HeapError, HeapMissing
from flatwater.memory.site import Place, own, to_json

VARIABLE = "FLATWATER_SAMPLE_BYTES"
INTERVAL_BYTES = 2 * 1024 * 1024
"""One allocation is noted for about so many bytes that the program allocates."""
MAX_SAMPLES = 8192
"""Noted allocations that are alive."""
MAX_SITES = 2048
"""Different stacks of these."""
FRAMES = 16
_registered = False


@dataclass(frozen=True, slots=True)
class Allocated:
    """A line of the program and what is alive of its allocations: estimates, and the age of the oldest sample.

    ``stack`` is the heaviest of those that led there, innermost first; () for what found no room among the sites.
    """

    place: Place | None
    count: float
    bytes: float
    oldest_s: float
    stack: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The lines, most bytes first. ``interval_bytes`` may have grown beyond what was asked for.

    ``seconds``: since the start; what was allocated before it is not known. ``noted`` allocations since then, ``alive``
    of them now, of at most ``max_samples``; ``dropped`` stacks found no room. ``complete`` is false when something else
    has taken the hooks away since.
    """

    interval_bytes: float
    seconds: float
    noted: int
    alive: int
    max_samples: int
    dropped: int
    complete: bool
    lines: tuple[Allocated, ...]

    @property
    def bytes(self) -> float:
        return sum(line.bytes for line in self.lines)


def start(
    interval_bytes: int = INTERVAL_BYTES,
    *,
    max_samples: int = MAX_SAMPLES,
    max_sites: int = MAX_SITES,
    frames: int = FRAMES,
) -> None:
    """Begin. Takes about ``48 * 2 * max_samples + 272 * max_sites`` bytes and 64 KiB, once.

    Raises HeapError when it is on already, HeapMissing without the C extension or on a Python that it does not know,
    ValueError for bounds that make no sense.
    """
    global _registered
    extension = _extension()
    try:
        extension.sampler_start(float(interval_bytes), max_samples, max_sites, frames)
    except RuntimeError as error:
        raise HeapError(str(error)) from error
    if not _registered:
        _registered = True
        atexit.register(stop)


def stop() -> None:
    """End, and forget everything. Stopping twice is allowed."""
    if hasattr(heap._heap, "sampler_stop"):
        heap._extension().sampler_stop()


def start_if_wanted() -> bool:
    """Start as the environment says (``FLATWATER_SAMPLE_BYTES``, 0 or nothing: off); whether it was started."""
    wanted = os.environ.get(VARIABLE, "")
    if not wanted.isdigit() or int(wanted) == 0:
        return False
    start(int(wanted))
    return True


def read() -> Sampled | None:
    """What is alive by the user's line; None while the sampler is off."""
    if not hasattr(heap._heap, "sampler_read"):
        return None
    found = heap._extension().sampler_read()
    if found is None:
        return None
    interval, noted, dropped, alive, most, seconds, rows = found
    return Sampled(
        interval_bytes=abs(interval),
        seconds=seconds,
        noted=noted,
        alive=alive,
        max_samples=most,
        dropped=dropped,
        complete=interval > 0,
        lines=_lines(rows),
    )


def _lines(rows: list[tuple[float, float, int, tuple[Place, ...]]]) -> tuple[Allocated, ...]:
    by_place: dict[Place | None, list[tuple[float, float, int, tuple[Place, ...]]]] = defaultdict(list)
    for row in rows:
        by_place[own(row[3]) if row[3] else None].append(row)
    lines = [
        Allocated(
            place=place,
            count=sum(row[0] for row in group),
            bytes=sum(row[1] for row in group),
            oldest_s=max(row[2] for row in group),
            stack=max(group, key=lambda row: row[1])[3],
        )
        for place, group in by_place.items()
    ]
    return tuple(sorted(lines, key=lambda line: -line.bytes))


def _extension() -> Any:
    extension = heap._extension()
    if not hasattr(extension, "sampler_start") or not extension.INTERNALS:
        raise HeapMissing("the sampler needs Python 3.11 to 3.13, with the C extension built for this very one")
    return extension


# ---- commands ---------------------------------------------------------------------------------------


def allocations(session: Any, *, max_lines: int = 100) -> dict[str, Any] | None:
    """A command: :func:`read` as JSON, the heaviest lines; None while it is off."""
    found = read()
    return None if found is None else document(found, max_lines)


def sample_allocations(session: Any, *, interval_bytes: int = INTERVAL_BYTES) -> None:
    """A command: :func:`start`, for as long as this client is connected."""
    start(interval_bytes)
    session.sampling = True


def document(found: Sampled, max_lines: int = 100) -> dict[str, Any]:
    """JSON values only."""
    return {
        "interval_bytes": round(found.interval_bytes),
        "seconds": round(found.seconds, 3),
        "noted": found.noted,
        "alive": found.alive,
        "max_samples": found.max_samples,
        "dropped": found.dropped,
        "complete": found.complete,
        "bytes": round(found.bytes),
        "lines": [
            {
                "place": None if line.place is None else to_json(line.place),
                "count": round(line.count),
                "bytes": round(line.bytes),
                "oldest_s": line.oldest_s,
                "stack": [to_json(place) for place in line.stack],
            }
            for line in found.lines[:max_lines]
        ],
    }
