"""The whole server in the test's own loop, over SQLite in a temporary directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.server.client import Client, eventually

from flatwater.server.app import build
from flatwater.server.service import Service
from flatwater.settings import Settings
from flatwater.settings.model import StoreSettings, StreamSettings


def settings_for(tmp_path: Path, **sections: Any) -> Settings:
    store = StoreSettings(url=f"sqlite:///{tmp_path / 'flatwater.db'}")
    found = Settings(store=store, stream=StreamSettings(heartbeat_s=1.0, status_s=0.1))
    return msgspec.structs.replace(found, **sections)


@asynccontextmanager
async def running(tmp_path: Path, **options: Any) -> AsyncIterator[Client]:
    """A server, at work; ``options`` are sections of the settings, or ``driver`` and ``attachments``."""
    parts = {name: options.pop(name) for name in ("driver", "attachments") if name in options}
    app = build(settings_for(tmp_path, **options), **parts)
    async with app.router.lifespan_context(app) as state:
        yield Client(app, state=dict(state))


def service_of(client: Client) -> Service:
    found: Service = client.state["service"]
    return found


def block(number: int, kind: str, children: dict[str, list[Any]] | None = None, **params: Any) -> dict[str, Any]:
    """A block of a definition; a value that starts with ``=`` is an expression."""

    def param(value: Any) -> dict[str, Any]:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        kind = "Expression" if text.startswith("=") else "Simple"
        return {"type": kind, "value": text.removeprefix("="), "required": False}

    return {
        "id": number,
        "name": f"b{number}",
        "blockType": kind,
        "children": children or {},
        "inputParams": {name: param(value) for name, value in params.items()},
    }


def definition(name: str, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    root = {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": list(blocks)}, "inputParams": {}}
    return {"id": name, "label": name, "inputParams": [], "outputParams": [], "rootBlock": root, **more}


SLEEP_MS = 600_000
QUICK = definition(
    "quick", block(1, "TaskStateBp", stateMsg="hello"), block(2, "SetTaskVariableBp", varName="x", varValue="=1 + 2")
)
SLOW = definition("slow", block(1, "DelayBp", timeMillis=SLEEP_MS))
FAILING = definition("failing", block(1, "ThrowExceptionBp", message="on purpose"))
SITE = definition("site", block(1, "GetIdleSiteBp", groupName="A", lock=True), block(2, "DelayBp", timeMillis=SLEEP_MS))


async def saved(client: Client, *definitions: dict[str, Any]) -> None:
    for item in definitions:
        answer = await client.post("/api/definitions", item)
        assert answer.status == 201, answer.body


async def started(client: Client, name: str, **more: Any) -> str:
    answer = await client.post("/api/runs", {"definition": name, **more})
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


async def in_state(client: Client, run_id: str, *states: str) -> Any:
    """The run, once it is in one of these states."""
    last: list[Any] = []

    async def reached() -> bool:
        last[:] = [(await client.get(f"/api/runs/{run_id}")).json]
        return last[0]["state"] in states

    await eventually(reached)
    return last[0]
