"""The process's own figures, sampled: what S1's ``monitor_memory.py`` printed, live and with a past.

RSS each ``sample_s`` (12 µs), PSS and USS each ``proportional_s`` (3 ms at 400 MB, in a thread), the loop's lag each
second. The past is a ring over ``history_s``.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from flatwater.bounded.histogram import Histogram
from flatwater.bounded.history import History
from flatwater.bounded.ledger import Ledger
from flatwater.memory import procfs
from flatwater.memory.slope import Slope, slope
from flatwater.settings.model import StatusSettings

_TICK_S = 1.0
MAX_POINTS = 360


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory and what tends to hold it. Bytes; ``percent`` of the machine's memory.

    ``blocks`` are the interpreter's allocated blocks, ``gc`` the objects in each generation, ``slope_*`` the trend of
    ``rss_bytes`` over the history with its 95 % confidence interval, ``limit_in_s`` the time until the limit when the
    trend is sure, ``history`` pairs of time and ``rss_bytes``.
    """

    rss_bytes: int
    vms_bytes: int
    percent: float
    pss_bytes: int | None
    uss_bytes: int | None
    threads: int
    fds: int
    gc: list[int]
    gc_collections: list[int]
    asyncio_tasks: int
    blocks: int
    limit_bytes: int | None
    limit_in_s: float | None
    slope_bytes_per_s: float | None
    slope_low_bytes_per_s: float | None
    slope_high_bytes_per_s: float | None
    history: list[tuple[float, int]]


class Sample(msgspec.Struct, frozen=True):
    """Resident bytes at a time (seconds since the epoch)."""

    at: float
    rss_bytes: int


class Sampler:
    """Samples this process for as long as its task ``run`` lives. ``alive`` is called at every tick (a watchdog's)."""

    def __init__(self, settings: StatusSettings, *, ledger: Ledger, alive: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._alive = alive
        self._process = psutil.Process()
        group = procfs.cgroup()
        self._limit = group.limit if group else None
        entries = max(5, round(settings.history_s / settings.sample_s))
        self._history: History[Sample] = History("status.history", max_entries=entries, ledger=ledger)
        self.lag = Histogram("status.loop_lag_s", ledger=ledger)
        self._proportional: tuple[int, int] | None = None
        self._trend: Slope | None = None

    async def run(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        next_sample = next_proportional = wake = loop.time()
        while True:
            now = loop.time()
            self.lag.add(max(0.0, now - wake))
            if now >= next_sample:
                self.sample()
                next_sample = now + self._settings.sample_s
            if now >= next_proportional:
                self._proportional = await asyncio.to_thread(proportional)
                next_proportional = now + self._settings.proportional_s
            if self._alive is not None:
                self._alive()
            wake = loop.time() + min(_TICK_S, self._settings.sample_s)
            await asyncio.sleep(wake - loop.time())

    def sample(self) -> Sample:
        """Take one sample now and keep it."""
        sample = Sample(time.time(), self.rss_bytes())
        self._history.add(sample)
        self._trend = slope([(point.at, float(point.rss_bytes)) for point in self._history])
        return sample

    def rss_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def memory(self) -> Memory:
        """All figures, of this moment where they cost little, of the last sample where they do not."""
        with self._process.oneshot():
            info = self._process.memory_info()
            threads, fds = self._process.num_threads(), self._process.num_fds()
        trend = self._trend
        pss, uss = self._proportional or (None, None)
        return Memory(
            rss_bytes=info.rss,
            vms_bytes=info.vms,
            percent=round(100 * info.rss / psutil.virtual_memory().total, 3),
            pss_bytes=pss,
            uss_bytes=uss,
            threads=threads,
            fds=fds,
            gc=list(gc.get_count()),
            gc_collections=[int(generation["collections"]) for generation in gc.get_stats()],
            asyncio_tasks=len(asyncio.all_tasks()),
            blocks=sys.getallocatedblocks(),
            limit_bytes=self._limit,
            limit_in_s=trend.reaches(self._limit, info.rss) if trend and self._limit else None,
            slope_bytes_per_s=trend.per_s if trend else None,
            slope_low_bytes_per_s=trend.low if trend else None,
            slope_high_bytes_per_s=trend.high if trend else None,
            history=_thinned([(point.at, point.rss_bytes) for point in self._history]),
        )


def _thinned(points: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """At most ``MAX_POINTS`` of them, evenly, the last one always."""
    step = -(-len(points) // MAX_POINTS) or 1
    return points[::-step][::-1]


def proportional(path: Path = Path("/proc/self/smaps_rollup")) -> tuple[int, int] | None:
    """PSS and USS in bytes, from ``smaps_rollup`` (Linux 4.14); None where there is none."""
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return None
    sizes = {}
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    private = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0) + sizes.get("Private_Hugetlb", 0)
    return (sizes["Pss"], private) if "Pss" in sizes else None
