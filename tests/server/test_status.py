"""The process's figures are true and bounded."""

from __future__ import annotations

from pathlib import Path

import psutil
from tests.server.client import eventually

from flatwater.bounded import Ledger, TaskGroup
from flatwater.server.status import MAX_POINTS, Sampler, proportional
from flatwater.settings.model import StatusSettings

QUICK = StatusSettings(sample_s=0.02, proportional_s=0.05, history_s=1.0)


async def test_figures_of_this_process() -> None:
    ledger = Ledger()
    beats = []
    sampler = Sampler(QUICK, ledger=ledger, alive=lambda: beats.append(1))
    async with TaskGroup("test", max_tasks=2, ledger=ledger) as tasks:
        tasks.start(sampler.run(), name="sampler")
        await eventually(lambda: len(sampler.memory().history) >= 8 and sampler.memory().pss_bytes)
        memory = sampler.memory()
    rss = psutil.Process().memory_info().rss
    assert 0.5 * rss < memory.rss_bytes < 2 * rss
    assert memory.vms_bytes > memory.rss_bytes
    assert memory.uss_bytes is not None
    assert memory.pss_bytes is not None
    assert 0 < memory.uss_bytes <= memory.pss_bytes <= 1.2 * memory.rss_bytes
    assert memory.threads >= 1
    assert memory.fds >= 3
    assert memory.asyncio_tasks >= 2
    assert len(memory.gc) == 3
    assert memory.blocks > 1000
    assert memory.slope_low_bytes_per_s is not None
    assert memory.slope_bytes_per_s is not None
    assert memory.slope_low_bytes_per_s <= memory.slope_bytes_per_s
    assert len(beats) >= 5
    assert sampler.lag.count >= 5


async def test_history_is_bounded_in_memory_and_in_the_answer() -> None:
    ledger = Ledger()
    sampler = Sampler(StatusSettings(sample_s=1.0, history_s=1000.0), ledger=ledger)
    for _ in range(1100):
        sampler._history.add(sampler.sample())
    (entry,) = [entry for entry in ledger.entries() if entry.name == "status.history"]
    assert entry.size == entry.bound == 1000
    history = sampler.memory().history
    assert len(history) <= MAX_POINTS
    assert history[-1][0] == max(at for at, _ in history)


def test_proportional_parses_and_survives_its_absence(tmp_path: Path) -> None:
    rollup = tmp_path / "smaps_rollup"
    rollup.write_text(
        "00400000-7ffe 0-0 00:00 0 [rollup]\nRss: 100 kB\nPss: 80 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 20 kB\n"
    )
    assert proportional(rollup) == (80 * 1024, 30 * 1024)
    assert proportional(tmp_path / "none") is None
