"""What is old goes, in small transactions; what is not, stays."""

from __future__ import annotations

from pathlib import Path

from tests.server.client import eventually
from tests.server.harness import QUICK, SLOW, in_state, running, saved, service_of, started

from flatwater.server.retention import Retention
from flatwater.settings.model import RetentionSettings


async def test_ended_runs_go_by_count_and_age_and_open_ones_stay(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await saved(client, QUICK, SLOW)
        slow = await started(client, "slow")
        quick = [await started(client, "quick") for _ in range(7)]
        for run_id in quick:
            await in_state(client, run_id, "SUCCEEDED")
        store = service_of(client).store
        assert await Retention(store, RetentionSettings()).prune() == 0
        assert await Retention(store, RetentionSettings(max_runs=4, max_batch=2)).prune() >= 3
        left = {run["id"] for run in (await client.get("/api/runs")).json["items"]}
        assert slow in left
        assert len(left) == 5
        await Retention(store, RetentionSettings(max_age_s=0.001, unused_s=0.001, max_batch=1)).prune()
        assert [run["id"] for run in (await client.get("/api/runs")).json["items"]] == [slow]
        assert (await client.get(f"/api/runs/{slow}/blocks")).status == 200


async def test_the_server_prunes_by_itself(tmp_path: Path) -> None:
    retention = RetentionSettings(max_age_s=0.05, period_s=0.05)
    async with running(tmp_path, retention=retention) as client:
        await saved(client, QUICK)
        run_id = await started(client, "quick")

        async def gone() -> bool:
            return (await client.get(f"/api/runs/{run_id}")).status == 404

        await eventually(gone)
