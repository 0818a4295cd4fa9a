"""Websockets: the handshake is proxied as a request, then bytes pass both ways unread (RFC 6455; RFC 9110, 7.8)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from flatwater.bounded import TaskGroup
from flatwater.gateway.client import Answer
from flatwater.gateway.error import FramingError, GatewayError, ResponseError, UpgradeError
from flatwater.gateway.forward import Forwarder
from flatwater.gateway.message import Headers, RequestHead, field
from flatwater.gateway.request import Inspector, response_headers
from flatwater.gateway.transit import Transit
from flatwater.gateway.upstream import Upstream

_HIGH_BYTES = 64 * 1024


class Line(Protocol):
    """A client's connection that can become a tunnel (flatwater.gateway.front)."""

    transport: asyncio.Transport
    closed: bool
    loop: asyncio.AbstractEventLoop

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...
    async def drain(self) -> None: ...
    def tunnel(self, side: Any) -> bytes: ...


class Side:
    """The client's end of a tunnel."""

    def __init__(self, line: Line, head: bytes) -> None:
        self._line = line
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        line.transport.write(head)
        if early := line.tunnel(self):
            self.feed(early)
        line.resume_reading()

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > _HIGH_BYTES:
            self._line.pause_reading()
        self._wake()

    def lost(self) -> None:
        self._wake()

    async def read(self) -> bytes:
        """What the client has sent; ``b""`` when it has left."""
        while not self._chunks:
            if self._line.closed:
                return b""
            self._waiter = self._line.loop.create_future()
            await self._waiter
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._line.resume_reading()
        return data

    async def write(self, data: bytes) -> bool:
        """False when the client has left."""
        if self._line.closed:
            return False
        self._line.transport.write(data)
        await self._line.drain()
        return not self._line.closed

    def close(self) -> None:
        self._line.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def tunnel(
    transit: Transit, upstream: Upstream, inspector: Inspector, forwarder: Forwarder, tasks: TaskGroup, extra: Headers
) -> None:
    """Raises GatewayError when the upstream cannot be asked; its refusal is passed on as its answer."""
    request = transit.request
    assert request is not None
    line: Line | None = transit.scope.get("extensions", {}).get("flatwater.tunnel")
    if line is None:
        raise UpgradeError("this server does not offer it", hint="use flatwater gateway, or its front protocol")
    if request.length != 0:
        raise FramingError("a handshake has no body")
    backend = upstream.choose()
    backend.active += 1
    transit.backend = backend
    host = upstream.host or (backend.authority if upstream.service.host_header == "endpoint" else request.host)
    lines, count = inspector.forwarded(request)
    head = RequestHead(
        request.method, request.target, [(b"host", host), *request.headers], lines, count, request.upgrade
    )
    try:
        exchange = transit.exchange = await backend.client.begin(head)
        response = await exchange.head()
    except GatewayError as error:
        upstream.failed(backend, error)
        raise
    upstream.answered(backend, response.status)
    if response.status != 101:
        await forwarder.relay(transit, response, extra)
        return
    if (field(response.headers, b"upgrade") or b"").lower() != request.upgrade.lower():
        raise ResponseError("it switches to a protocol that was not asked for", where=backend.url)
    fields = [
        *response_headers(response.headers, tuple(extra), bodyless=True, interim=True),
        (b"connection", b"upgrade"),
    ]
    answer = [b"HTTP/1.1 101 Switching Protocols", *(name + b": " + value for name, value in fields)]
    answer += [b"upgrade: " + request.upgrade, b"", b""]
    transit.status = 101
    transit.started = True
    side = Side(line, b"\r\n".join(answer))
    transit.pump = tasks.start(_up(side, exchange), name="tunnel")
    try:
        while data := await exchange.read():
            if not await side.write(data):
                return
    except GatewayError as error:
        transit.reason = error.code
    finally:
        side.close()


async def _up(side: Side, exchange: Answer) -> None:
    """From the client to the upstream; when the client has left, the upstream's connection is cut."""
    try:
        while data := await side.read():
            if not await exchange.write(data):
                break
    except GatewayError:
        pass
    exchange.fail(UpgradeError("the client has left"))
