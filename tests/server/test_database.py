"""The same calls over PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.client import Client, eventually
from tests.server.harness import QUICK, SITE, in_state, running, saved, service_of, started

from flatwater.server.retention import Retention
from flatwater.settings.model import RetentionSettings, StoreSettings


@pytest.fixture(params=["postgres_url", "mariadb_url"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    store = StoreSettings(url=request.getfixturevalue(request.param))
    async with running(tmp_path, store=store) as found:
        yield found


async def test_a_day_in_the_life(client: Client) -> None:
    await saved(client, QUICK, SITE)
    await client.ask("PUT", "/api/sites", json=[{"id": "A-1", "group": "A", "attrs": {"é": 1}, "tags": ["t"]}])
    holder = await started(client, "site")
    waiting = await started(client, "site", idempotency_key="o-1")
    await in_state(client, waiting, "WAITING")
    run = await in_state(client, await started(client, "quick", priority=2), "SUCCEEDED")
    assert run["variables"] == {"x": 3}
    assert len((await client.get(f"/api/runs/{run['id']}/blocks")).json["steps"]) >= 2

    async def placed() -> bool:
        wait = (await client.get(f"/api/runs/{waiting}")).json["wait"]
        return bool(wait and wait[0]["place"] == 1)

    await eventually(placed)
    page = (await client.get("/api/runs?limit=2&state=WAITING,SUCCEEDED,RUNNING")).json
    assert len(page["items"]) == 2
    assert len((await client.get(f"/api/runs?limit=2&cursor={page['next']}")).json["items"]) == 1
    await client.post(f"/api/runs/{holder}/cancel")
    await in_state(client, holder, "CANCELED")

    async def passed_on() -> bool:
        return bool((await client.get("/api/sites/A-1")).json["locked_by"] == {"run": waiting, "path": "-1/1"})

    await eventually(passed_on)
    assert (await client.get("/api/sites/changes?limit=2")).json["next"]
    trigger = {"id": "t", "definition_id": "quick", "kind": "event", "spec": "truck"}
    assert (await client.post("/api/triggers", trigger)).status == 201
    begun = (await client.post("/api/events", {"name": "truck"})).json["started"]
    assert len(begun) == 1
    await in_state(client, begun[0], "SUCCEEDED")
    service_of(client).counts._until = 0.0
    status = (await client.get("/api/status")).json
    assert status["runs"]["SUCCEEDED"] == 2
    assert (await client.get("/metrics")).status == 200
    found = (await client.post("/api/queryTaskRecord", {"queryParam": {"outOrderNo": "o-1"}})).json["data"]["pageList"]
    assert [record["id"] for record in found] == [waiting]
    await Retention(service_of(client).store, RetentionSettings(max_age_s=0.001)).prune()
    assert [item["id"] for item in (await client.get("/api/runs")).json["items"]] == [waiting]
