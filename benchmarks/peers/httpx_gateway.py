"""A plain reverse proxy on Starlette and httpx: ``httpx_gateway.py PORT UPSTREAM``."""

from __future__ import annotations

import sys

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

client = httpx.AsyncClient(base_url=sys.argv[2], limits=httpx.Limits(max_connections=100))


async def proxy(request: Request) -> StreamingResponse:
    headers = [(name, value) for name, value in request.headers.raw if name not in (b"host", b"connection")]
    asked = client.build_request(request.method, request.url.path, headers=headers)
    answer = await client.send(asked, stream=True)
    return StreamingResponse(
        answer.aiter_raw(), answer.status_code, dict(answer.headers), background=BackgroundTask(answer.aclose)
    )


app = Starlette(routes=[Route("/{path:path}", proxy)])
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, ws="none")
