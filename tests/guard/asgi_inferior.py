"""Apps that grow, served by a process of their own; told by environment variables."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from flatwater.guard.asgi import install

KEPT: list[bytearray] = []
REQUESTS: list[Request] = []


async def leak(request: Request) -> Response:
    KEPT.append(bytearray(b"x" * (int(request.path_params["kib"]) << 10)))
    await asyncio.sleep(0.005)
    return PlainTextResponse(str(os.getpid()))


async def plain(request: Request) -> Response:
    await asyncio.sleep(0.005)
    return PlainTextResponse(str(os.getpid()))


async def keep(request: Request) -> Response:
    REQUESTS.append(request)
    return PlainTextResponse("kept")


async def table(request: Request) -> Response:
    rows = {row.name: [row.count, row.per_call, row.low, row.failed] for row in app.worker.rows()}
    kept = [[one.name, one.path, one.alike] for one in app.worker.expectation.reports]
    now = app.worker.statistics()
    return JSONResponse(
        {"rows": rows, "kept": kept, "size": now.size, "trims": now.trims, "trimmed": now.trimmed, "level": now.level}
    )


async def garbage(request: Request) -> Response:
    rows: list[Any] = [{"row": number} for number in range(int(request.path_params["mib"]) * 4000)]
    rows.append(rows)  # a cycle: only a collection frees it
    return PlainTextResponse("made")


async def broken(request: Request) -> Response:
    raise RuntimeError("broken")


starlette = Starlette(
    routes=[
        Route("/leak/{kib}", leak),
        Route("/keep/{number}", keep),
        Route("/table", table),
        Route("/broken", broken),
        Route("/garbage/{mib}", garbage),
        Mount("/api/{version}", routes=[Route("/plain/{number}", plain)]),
    ]
)


soft = os.environ.get("INFERIOR_SOFT")
app = install(starlette, soft=int(soft) << 20 if soft else None, dead_after_s=0.5, watch_every_s=0.01)
