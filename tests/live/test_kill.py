"""kill -9 at random moments while hundreds of flows run: nothing is lost, nothing is done twice, nothing is left.

KILLS=100 SEED=7 pytest tests/live/test_kill.py      (four by default; another SEED kills at other moments)
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

KILLS = int(os.environ.get("KILLS", "4"))
USUAL = 4
RUNS = 320
FEW_KILLS, FEW_RUNS = 2, 60
"""Over a network, where another database shows that it does the same."""
END_S = 120.0
LIFE_S = (0.15, 1.2)
"""How long a process lives from being ready: between these, at random."""


@pytest.mark.timeout(120 + 20 * KILLS)
async def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    runs = RUNS + 40 * max(0, KILLS - USUAL)
    figure = await kill_again_and_again(f"sqlite:///{tmp_path / 'plant.db'}", tmp_path, KILLS, runs)
    pytestconfig.stash.setdefault(FIGURES, []).append(figure)


@pytest.mark.timeout(240)
async def test_the_same_over_a_network(postgres_url: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    figure = await kill_again_and_again(postgres_url, tmp_path, FEW_KILLS, FEW_RUNS, after="prepared")
    pytestconfig.stash.setdefault(FIGURES, []).append(f"PostgreSQL: {figure}")


async def kill_again_and_again(url: str, folder: Path, kills: int, runs: int, after: str = "ready") -> str:
    """Kill some time ``after`` the process has said so; returns what to tell of it.

    Raises AssertionError with all that went wrong.
    """
    seed = int(os.environ.get("SEED", "20261121"))
    async with Store.open(url):
        pass  # creates the tables
    audit.install(url)
    chance = random.Random(seed)
    crowd, wrong = [], []
    done: set[tuple[str, str]] = set()
    began = time.time()
    for turn in range(kills + 1):
        before = (folder / "did").stat().st_size if turn else 0
        with Inferior("plant", url, folder, runs, f"seed={seed + turn}", log=folder / "log") as plant:
            plant.hear("ready", 60)
            if turn < kills:
                plant.hear(after, 60)
                await asyncio.sleep(chance.uniform(*LIFE_S))
                plant.kill()
            else:
                plant.hear("ended", END_S + runs)
                plant.wait(90)
                assert plant.said[-1] == "ended 0", "contexts live on after all runs have ended"
        wrong += audit.check_repeats(folder, before, done)
        done = audit.succeeded(url)
        if turn < kills:
            crowd.append(audit.open_runs(url))
            wrong += audit.check_accepted(url, folder)
        assert not wrong, f"seed {seed}, after kill {turn + 1}:\n" + "\n".join(wrong[:20])
    wrong = audit.check_end(url, folder, runs)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong[:40])
    assert min(crowd) > 0, f"nothing was under way at a kill: {crowd}"  # hundreds, where the machine is free
    return (
        f"kill -9 × {kills} (seed {seed}): {runs} runs, open at the kills {min(crowd)}…{max(crowd)},"
        f" {len(done)} blocks done once, all ended after {time.time() - began:.0f} s"
    )
