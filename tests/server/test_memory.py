"""The server's instruments: what holds its own memory, through the API."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.client import Client, eventually
from tests.server.harness import running, service_of

from flatwater.server.instrument import Instruments
from flatwater.settings.model import ServerSettings

pytestmark = pytest.mark.usefixtures("usual_priority")


class Crate:
    """Something to find."""


YARD: list[Crate] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(tmp_path, server=ServerSettings(diagnostic_token="diagnose")) as found:
        found.headers["authorization"] = "Bearer diagnose"
        yield found
    YARD.clear()


async def test_figures(client: Client) -> None:
    found = (await client.get("/api/memory")).json
    assert found["usage"]["memory"]["rss"] > 10_000_000
    assert found["usage"]["tasks"] > 0
    assert isinstance(found["pools"], list)


async def test_types_containers_and_the_walk_to_their_owner(client: Client) -> None:
    service_of(client).instruments._looked_at = float("-inf")
    await client.get("/api/memory/heap")
    YARD.extend(Crate() for _ in range(30_000))

    async def grown() -> bool:
        rows = (await client.get("/api/memory/heap?search=crate")).json["types"]
        return bool(rows) and rows[0]["now"] >= 30_000

    await eventually(grown, timeout_s=60)
    heap = (await client.get("/api/memory/heap?floor=1000")).json
    yard = next(row for row in heap["containers"] if row["now"] == 30_000 and row["type"] == "list")
    graph = await client.post("/api/memory/graph")
    assert graph.json["statistics"]["objects"] > 100_000
    assert graph.json["largest"][0]["retained_bytes"] >= graph.json["largest"][-1]["retained_bytes"]
    item = (await client.get(f"/api/memory/objects/{yard['id']}")).json
    assert "YARD" in item["path"]["text"]
    assert item["holds_count"] == 30_000
    crate = item["holds"][0]["node"]
    assert crate["type"].endswith("Crate")
    above = (await client.get(f"/api/memory/objects/{crate['id']}")).json
    assert yard["id"] in {row["node"].get("id") for row in above["held_by"]}
    assert not re.search(r"0x[0-9a-f]{6,}|\"address\"", str(item) + str(graph.json)), "no address in any answer"


async def test_unknown_objects(client: Client) -> None:
    answer = await client.get("/api/memory/objects/0badcafe")
    assert answer.status == 404
    assert "take a new graph" in answer.error["hint"]


async def test_collect_and_trim(client: Client) -> None:
    assert (await client.post("/api/memory/collect")).json["freed"] >= 0
    told = (await client.post("/api/memory/trim")).json
    assert min(told["before"], told["after"]) > 10_000_000


async def test_a_graph_expires_and_its_child_with_it() -> None:
    async with Instruments(keep_s=0.2) as instruments:
        await instruments.take()
        assert instruments._graph is not None

        async def closed() -> bool:
            return instruments._graph is None

        await eventually(closed, timeout_s=30)
        assert await instruments.ask(lambda graph: graph.statistics().objects) > 10_000, "and comes back when asked"
