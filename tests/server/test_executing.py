"""What executes now is shown, although a block without outside effect is stored at its end only."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.server.client import Client, eventually
from tests.server.harness import block, definition, in_state, running, saved, started

from flatwater.settings.model import EngineSettings


async def steps(client: Client, run_id: str) -> dict[str, dict[str, Any]]:
    answer = await client.get(f"/api/runs/{run_id}/blocks")
    return {step["path"]: step for step in answer.json["steps"]}


async def test_executing_blocks_are_among_the_steps(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answered.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as outside, running(tmp_path) as client:
        url = f"http://127.0.0.1:{outside.sockets[0].getsockname()[1]}/"
        await saved(client, definition("asks", block(1, "PrintBp", message="begins"), block(2, "GetBp", url=url)))
        run_id = await started(client, "asks")

        async def under_way() -> bool:
            return (await steps(client, run_id)).get("-1/2", {}).get("state") == "RUNNING"

        await eventually(under_way)
        begun = (await steps(client, run_id))["-1/2"]
        assert (begun["attempt"], begun["ended_at"], begun["type"]) == (1, None, "GetBp")
        answered.set()
        await in_state(client, run_id, "SUCCEEDED")
        ended = await steps(client, run_id)
        assert [(path, step["state"]) for path, step in ended.items()] == [("-1/1", "SUCCEEDED"), ("-1/2", "SUCCEEDED")]


async def test_a_block_that_waited_outside_memory_keeps_its_beginning(tmp_path: Path) -> None:
    async with running(tmp_path, engine=EngineSettings(park_after_s=0.05)) as client:
        await client.ask("PUT", "/api/sites", json=[{"id": "A1", "group": "A", "filled": True}])
        await saved(client, definition("takes", block(1, "GetIdleSiteBp", groupName="A", filled=False)))
        run_id = await started(client, "takes")

        async def parked() -> bool:
            status = (await client.get("/api/status")).json
            return bool(status["runs"]["WAITING"] == 1 and status["contexts"]["live"] == 0)

        await eventually(parked)
        since = (await client.get(f"/api/runs/{run_id}")).json["wait"][0]["since"]
        await asyncio.sleep(0.3)
        await client.ask("PATCH", "/api/sites/A1", json={"filled": False})
        await in_state(client, run_id, "SUCCEEDED")
        step = (await steps(client, run_id))["-1/1"]
        assert step["started_at"] <= since
        assert step["ended_at"] - step["started_at"] >= 0.3
