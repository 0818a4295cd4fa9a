"""kill -9 at random moments while hundreds of flows run: nothing is lost, nothing is done twice, nothing is left.

KILLS=100 SEED=7 pytest tests/live/test_kill.py      (six by default; another SEED kills at other moments)
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from flatwater.store import Store
from tests.figure import FIGURES
from tests.live import audit
from tests.live.process import Inferior

KILLS = int(os.environ.get("KILLS", "6"))
USUAL = 6
RUNS = 480
END_S = 120.0
LIFE_S = (0.15, 1.2)
"""How long a process lives from being ready: between these, at random."""


@pytest.mark.timeout(120 + 20 * KILLS)
async def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seed = int(os.environ.get("SEED", "20261121"))
    runs = RUNS + 40 * max(0, KILLS - USUAL)
    file, url = tmp_path / "plant.db", f"sqlite:///{tmp_path / 'plant.db'}"
    async with Store.open(url):
        pass  # creates the tables
    audit.install(file)
    chance = random.Random(seed)
    crowd, wrong = [], []
    done: set[tuple[str, str]] = set()
    began = time.time()
    for turn in range(KILLS + 1):
        before = (tmp_path / "did").stat().st_size if turn else 0
        with Inferior("plant", url, tmp_path, runs, f"seed={seed + turn}", log=tmp_path / "log") as plant:
            plant.hear("ready", 60)
            if turn < KILLS:
                await asyncio.sleep(chance.uniform(*LIFE_S))
                plant.kill()
            else:
                plant.hear("ended", END_S + runs)
                plant.wait(30)
                assert plant.said[-1] == "ended 0", "contexts live on after all runs have ended"
        wrong += audit.check_repeats(tmp_path, before, done)
        done = audit.succeeded(file)
        if turn < KILLS:
            crowd.append(audit.open_runs(file))
            wrong += audit.check_accepted(file, tmp_path)
        assert not wrong, f"seed {seed}, after kill {turn + 1}:\n" + "\n".join(wrong[:20])
    wrong = audit.check_end(file, tmp_path, runs)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong[:40])
    assert min(crowd) > 0, f"nothing was under way at a kill: {crowd}"  # hundreds, where the machine is free
    pytestconfig.stash.setdefault(FIGURES, []).append(
        f"kill -9 × {KILLS} (seed {seed}): {runs} runs, open at the kills {min(crowd)}…{max(crowd)},"
        f" {len(done)} blocks done once, all ended after {time.time() - began:.0f} s"
    )
