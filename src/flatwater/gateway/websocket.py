"""Websockets under ASGI servers that speak the protocol themselves: their messages become frames to the upstream and
back. To the gateway such a client is one that asked for an upgrade over HTTP (flatwater.gateway.tunnel)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from flatwater.bounded import TaskGroup
from flatwater.errors import ClosedError, LimitError
from flatwater.gateway.error import OverloadError, ResponseError, ResponseSizeError
from flatwater.gateway.frame import BINARY, CLOSE, PING, PONG, TEXT, Frames, read_close, text, write, write_close
from flatwater.gateway.message import Headers, field
from flatwater.gateway.transit import Event, Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_OURS = frozenset({b"connection", b"upgrade", b"content-length", b"transfer-encoding"})
_SERVERS = _OURS | {b"date", b"server"}
_DENIAL = "websocket.http.response"
_NORMAL = 1000
_NO_CODE = 1005
_REFUSED = 1008
_FAILED = 1011
_TOO_LARGE = 1009


async def serve_websocket(
    app: App, scope: Scope, receive: Receive, send: Send, tasks: TaskGroup, *, max_message_bytes: int
) -> None:
    """Answer a ``websocket`` scope with ``app``, which answers ``http`` ones."""
    if (await receive())["type"] == "websocket.connect":
        await Bridge(scope, receive, send, tasks, max_message_bytes).run(app)


class Bridge:
    """The client's side, as a :class:`flatwater.gateway.tunnel.Line`: the tunnel writes the upstream's bytes to it and
    is fed with bytes for the upstream."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, tasks: TaskGroup, max_message_bytes: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: Any = self  # only its ``write`` is asked for
        self.closed = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._tasks = tasks
        self._key = base64.b64encode(secrets.token_bytes(16))
        self._frames = Frames(max_message_bytes)
        self._side: Any = None
        self._pump: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._accepted = asyncio.Event()
        self._accept: Event = {}
        self._unsent: list[bytes] = []
        self._asked = False
        self._told = False  # the client that it is over
        self._gone = False  # the client
        self._code, self._reason = _FAILED, ""

    async def run(self, app: App) -> None:
        try:
            await app(self._as_http(), self._next, self._answer)
        finally:
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.wait([self._pump])
        await self._tell_end()

    # The tunnel's Line.

    def tunnel(self, side: Any) -> bytes:
        self._side = side
        try:
            self._pump = self._tasks.start(self._up(), name="messages of a websocket")
        except (LimitError, ClosedError):
            raise OverloadError("too many websockets are open") from None
        return b""

    def write(self, data: bytes) -> None:
        """The upstream's bytes, its answer to the handshake first. Raises ResponseError when that is none."""
        if self._accept:
            self._unsent.append(data)
            return
        lines = data[: -len(b"\r\n\r\n")].split(b"\r\n")[1:]
        headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
        accept = base64.b64encode(hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest())
        if field(headers, b"sec-websocket-accept") != accept or field(headers, b"sec-websocket-extensions"):
            raise ResponseError("its answer to the handshake is for another one")
        protocol = field(headers, b"sec-websocket-protocol")
        if protocol is not None and protocol.decode("latin-1") not in self._scope.get("subprotocols", ()):
            raise ResponseError("it chose a subprotocol that was not offered")
        kept = [item for item in headers if item[0] not in _SERVERS and not item[0].startswith(b"sec-websocket-")]
        chosen = None if protocol is None else protocol.decode("latin-1")
        self._accept = {"type": "websocket.accept", "subprotocol": chosen, "headers": kept}

    async def drain(self) -> None:
        """Give the client what was written; it may take its time."""
        await self._accepted.wait()
        unsent, self._unsent = self._unsent, []
        try:
            for message in self._frames.feed(b"".join(unsent)):
                await self._deliver(message.opcode, message.data)
        except ResponseError as error:
            self._code = _TOO_LARGE if isinstance(error, ResponseSizeError) else _FAILED
            raise

    def pause_reading(self) -> None:
        self._room.clear()

    def resume_reading(self) -> None:
        self._room.set()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    async def _deliver(self, opcode: int, data: bytes) -> None:
        if self.closed or self._told:
            return
        if opcode == TEXT:
            await self._send({"type": "websocket.send", "text": text(data)})
        elif opcode == BINARY:
            await self._send({"type": "websocket.send", "bytes": data})
        elif opcode == PING:
            self._side.feed(write(PONG, data))
        elif opcode == CLOSE:
            code, self._reason = read_close(data)
            self._code = _NORMAL if code == _NO_CODE else code
            self._side.feed(write_close(code))  # then the upstream ends the connection
            await self._tell_end()

    async def _up(self) -> None:
        """The client's messages, while the upstream takes them."""
        await self._send(self._accept)
        self._accepted.set()
        while True:
            await self._room.wait()
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self._gone = True
                if not self._told:
                    self._side.feed(write_close(event.get("code") or _NO_CODE, event.get("reason") or ""))
                self.closed = True
                self._side.lost()
                return
            data = event.get("bytes")
            self._side.feed(write(BINARY, data) if data is not None else write(TEXT, event["text"].encode()))

    async def _tell_end(self) -> None:
        if not self._gone and not self._told:
            self._told = True
            await self._send({"type": "websocket.close", "code": self._code, "reason": self._reason})

    # The request as HTTP.

    def _as_http(self) -> Scope:
        scope = self._scope
        headers: Headers = [
            item for item in scope["headers"] if item[0] not in _OURS and not item[0].startswith(b"sec-websocket-")
        ]
        headers += [(b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
        headers.append((b"sec-websocket-key", self._key))
        if protocols := scope.get("subprotocols"):
            headers.append((b"sec-websocket-protocol", ", ".join(protocols).encode("latin-1")))
        return {
            **scope,
            "type": "http",
            "method": "GET",
            "http_version": "1.1",
            "scheme": "https" if scope.get("scheme") == "wss" else "http",
            "headers": headers,
            "extensions": {"flatwater.tunnel": self, "flatwater.abort": self.abort},
        }

    async def _next(self) -> Event:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._receive()
        self._gone = True
        return {"type": "http.disconnect"}

    async def _answer(self, event: Event) -> None:
        """There will be no websocket: say why, where the server can."""
        if self._gone:
            return
        if _DENIAL not in self._scope.get("extensions", ()):
            self._code = _REFUSED
            await self._tell_end()
            return
        self._told = True
        kind = event["type"].removeprefix("http.response.")
        if kind in ("start", "body"):
            told: Event = {**event, "type": f"{_DENIAL}.{kind}"}
            if kind == "start":
                told["headers"] = [item for item in event["headers"] if item[0] != b"connection"]
            await self._send(told)
