"""The smallest caching proxy: an ASGI app around HttpCache and aiohttp, to hold the cache by itself against suites.

``python -m tests.gateway.cachingproxy ORIGIN PORT`` serves it. The real one is flatwater.gateway.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from flatwater.bounded import Ledger, TaskGroup
from flatwater.gateway.cache import ERRORS, Answer, HttpCache, Miss, Response, Stale, cache_key

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "trailer", "proxy-connection"}
Send = Callable[[dict[str, Any]], Awaitable[None]]


class CachingProxy:
    def __init__(self, origin: str, ledger: Ledger) -> None:
        self.origin = origin
        self.cache = HttpCache(ledger=ledger)
        self.tasks = TaskGroup("proxy", max_tasks=100, ledger=ledger)
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [item for item in scope["headers"] if item[0].decode() not in HOP]
        host = dict(headers).get(b"host", b"")
        found = self.cache.lookup(scope["method"].encode(), cache_key(b"http", host, target), headers)
        if isinstance(found, Answer):
            await answer(send, found.response)
        elif isinstance(found, Stale) and found.while_revalidating:
            await answer(send, self.cache.stale_answer(found).response)
            self.tasks.start(self.forward(found, found.background(), target, b"", nowhere, b"GET"), name="revalidate")
        else:
            asked = found.conditional() if isinstance(found, Stale) else found.request
            await self.forward(found, asked, target, body, send, found.method)

    async def live(self, receive: Any, send: Send) -> None:
        async with aiohttp.ClientSession(auto_decompress=False) as self.session, self.tasks:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def forward(
        self, found: Miss, headers: list[tuple[bytes, bytes]], target: bytes, body: bytes, send: Send, method: bytes
    ) -> None:
        assert self.session is not None
        fields = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name != b"content-length"
        ]
        try:
            async with self.session.request(
                method.decode(),
                self.origin + target.decode("latin-1"),
                headers=fields,
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=["user-agent", "accept", "accept-encoding", "content-type"],
            ) as response:
                await self.answer(found, response, send)
        except aiohttp.ClientError:
            if isinstance(found, Stale) and found.on_disconnect:
                await answer(send, self.cache.stale_answer(found, b"disconnected").response)
            else:
                await answer(send, Response(502, [(b"content-length", b"0")], b""))

    async def answer(self, found: Miss, response: aiohttp.ClientResponse, send: Send) -> None:
        headers = [(name.lower(), value) for name, value in response.raw_headers]
        if isinstance(found, Stale):
            if response.status == 304 and found.asked:
                await answer(send, self.cache.refreshed(found, headers).response)
                return
            if response.status in ERRORS and found.on_error:
                await answer(send, self.cache.stale_answer(found, b"error").response)
                return
        self.cache.invalidate(found, response.status, headers)
        recorder = self.cache.record(found, response.status, headers)
        connection = {
            name.strip().lower() for name, value in headers if name == b"connection" for name in value.split(b",")
        }
        told = [item for item in headers if item[0].decode() not in HOP and item[0] not in connection]
        told.append((b"cache-status", self.cache.status(found, response.status, recorder is not None)))
        await send({"type": "http.response.start", "status": response.status, "headers": told})
        async for chunk in response.content.iter_any():
            if recorder is not None:
                recorder.add(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if recorder is not None:
            recorder.commit()
        await send({"type": "http.response.body"})


async def answer(send: Send, response: Response) -> None:
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await send({"type": "http.response.body", "body": response.body})


async def nowhere(message: dict[str, Any]) -> None:
    """For revalidation in the background, which has no client."""


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        CachingProxy(sys.argv[1], Ledger()),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
        server_header=False,
        date_header=False,
    )
