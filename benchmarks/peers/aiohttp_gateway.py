"""A plain reverse proxy on uvicorn and aiohttp's client: ``aiohttp_gateway.py PORT UPSTREAM``."""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import uvicorn

UPSTREAM = sys.argv[2]
session: aiohttp.ClientSession | None = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    global session
    if scope["type"] != "http":
        return
    if session is None:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100), auto_decompress=False)
    url = UPSTREAM + scope["raw_path"].decode()
    headers = [
        (name.decode(), value.decode()) for name, value in scope["headers"] if name not in (b"host", b"connection")
    ]
    async with session.request(scope["method"], url, headers=headers) as answer:
        found = [
            (name, value) for name, value in answer.raw_headers if name.lower() not in (b"connection", b"keep-alive")
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": found})
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off", ws="none")
