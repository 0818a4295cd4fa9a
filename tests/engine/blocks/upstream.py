"""A real HTTP server on loopback that answers well, late, wrongly or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

BROKEN = {
    "short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "garbage": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
    "silent": b"",
}


class Upstream:
    """What it was asked, and where it is."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.failures = 0
        self.release = asyncio.Event()
        self.url = ""
        self.raw_url = ""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(
            [
                web.route("*", "/echo", self.echo),
                web.get("/text", self.text),
                web.get("/status/{code}", self.status),
                web.route("*", "/slow", self.slow),
                web.get("/trickle", self.trickle),
                web.get("/huge", self.huge),
                web.get("/loop/{count}", self.loop),
                web.get("/away", self.away),
                web.route("*", "/flaky", self.flaky),
                web.get("/cookie", self.cookie),
            ]
        )
        return app

    async def echo(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        body = await request.text()
        return web.json_response(
            {"method": request.method, "query": dict(request.query), "headers": dict(request.headers), "body": body}
        )

    async def text(self, request: web.Request) -> web.Response:
        return web.Response(body="grüß".encode("latin-1"), content_type="text/plain", charset="latin-1")

    async def status(self, request: web.Request) -> web.Response:
        self.seen.append(request.path)
        return web.Response(status=int(request.match_info["code"]), text="because I say so")

    async def slow(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("Idempotency-Key"))
        await self.release.wait()
        return web.Response(text="late")

    async def trickle(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.release.is_set():
            await response.write(b"x")
            await asyncio.sleep(0.02)
        return response

    async def huge(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_compression()
        await response.prepare(request)
        for _ in range(int(request.query["mib"])):
            await response.write(b"0" * 1024 * 1024)
        return response

    async def loop(self, request: web.Request) -> web.Response:
        count = int(request.match_info["count"])
        raise web.HTTPFound(f"/loop/{count - 1}" if count else "/text")

    async def away(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("file:///etc/passwd")

    async def flaky(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("Idempotency-Key"))
        self.failures -= 1
        return web.Response(status=503 if self.failures >= 0 else 200, text="[1]")

    async def cookie(self, request: web.Request) -> web.Response:
        response = web.json_response(dict(request.cookies))
        response.set_cookie("session", "secret")
        return response


async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers by the path with raw bytes, then closes; ``/reset`` cuts the line."""
    try:
        line = await reader.readline()
        await reader.readuntil(b"\r\n\r\n")
        name = line.split()[1].decode().strip("/")
        if name == "reset":
            line_socket = writer.get_extra_info("socket")
            line_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        writer.write(BROKEN[name])
        await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def serve() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    runner = web.AppRunner(upstream.app(), shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    raw = await asyncio.start_server(broken, "127.0.0.1", 0)
    upstream.raw_url = f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        upstream.release.set()
        raw.close()
        await raw.wait_closed()
        await runner.cleanup()
