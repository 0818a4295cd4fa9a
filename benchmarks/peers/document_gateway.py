"""The repaired design of the source document (S2): FastAPI, one aiohttp session a service, an LRU cache that sweeps its
times at every write, a bounded history, tracked background tasks. Written anew from its description, not copied:
``document_gateway.py PORT UPSTREAM``."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import OrderedDict, deque
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI, Request

UPSTREAM = sys.argv[2]
MAX_CACHE, TTL_S, MAX_HISTORY = 5000, 1800.0, 5000


class SweepingCache:
    """Entries and their times; every ``put`` looks at all times, as the document's does."""

    def __init__(self) -> None:
        self.values: OrderedDict[str, Any] = OrderedDict()
        self.times: dict[str, float] = {}

    def get(self, key: str) -> Any:
        if key in self.values and time.time() - self.times[key] < TTL_S:
            self.values.move_to_end(key)
            return self.values[key]
        return None

    def put(self, key: str, value: Any) -> None:
        now = time.time()
        for old in [name for name, at in self.times.items() if now - at > TTL_S]:
            self.values.pop(old, None)
            self.times.pop(old, None)
        self.values[key] = value
        self.times[key] = now
        while len(self.values) > MAX_CACHE:
            old, _ = self.values.popitem(last=False)
            self.times.pop(old, None)


app = FastAPI()
cache, history, tasks = SweepingCache(), deque(maxlen=MAX_HISTORY), set()
session: aiohttp.ClientSession | None = None


async def background(key: str) -> None:
    await asyncio.sleep(0)


@app.get("/{path:path}")
async def handle(path: str, request: Request) -> Any:
    global session
    key = f"{path}?{request.url.query}"
    found = cache.get(key)
    if found is not None and "cached" in path:
        return found
    if session is None:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100))
    async with session.get(f"{UPSTREAM}/{path}") as answer:
        result = {"status": answer.status, "data": await answer.text()}
    cache.put(key, result)
    history.append({"path": path, "at": time.time(), "status": answer.status})
    task = asyncio.create_task(background(key))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return json.loads(json.dumps(result))


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, ws="none")
