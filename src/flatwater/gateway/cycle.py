"""One request and its answer between the front's protocol and the ASGI app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from flatwater.gateway.message import STATUS_LINES, write_chunk, write_end

if TYPE_CHECKING:
    from flatwater.gateway.front import App, FrontConnection

log = logging.getLogger(__name__)

Event = MutableMapping[str, Any]

_INTERIM = {102: b"Processing", 103: b"Early Hints"}
_ERROR: list[tuple[bytes, bytes]] = [(b"content-length", b"0"), (b"x-flatwater-reason", b"internal")]


class Cycle:
    """``receive`` and ``send`` as ASGI has them; at most 64 KiB (and one read) of a request's body wait here."""

    __slots__ = (
        "_body",
        "_bodyless",
        "_chunked",
        "_expects",
        "_front",
        "_head",
        "_left",
        "_more",
        "_told",
        "_trailers",
        "_waiter",
        "complete",
        "disconnected",
        "keep_alive",
        "scope",
        "started",
    )

    def __init__(self, front: FrontConnection, *, keep_alive: bool, expects: bool) -> None:
        self._front = front
        self.keep_alive = keep_alive
        self._expects = expects
        self.scope: dict[str, Any] = {}
        self.started = self.complete = self.disconnected = False
        self._body: list[bytes] = []
        self._more = True  # the request's body has not ended yet
        self._told = False  # the app knows that it has
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._left = -1  # bytes of a sized answer to come
        self._chunked = self._trailers = self._bodyless = False

    async def run(self, app: App) -> None:
        """The request's task."""
        front = self._front
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("a request failed: %s %s", self.scope["method"], self.scope["path"])
            if not self.started and not self.disconnected:
                self.keep_alive = False
                await self.send({"type": "http.response.start", "status": 500, "headers": _ERROR})
                await self.send({"type": "http.response.body"})
        finally:
            if not self.complete and not self.disconnected and front.side is None:
                front.abort()  # what the client has must not pass for a whole answer
            if self._expects:
                self.keep_alive = False

    async def receive(self) -> Event:
        front = self._front
        if self._expects and not self.started:
            self._expects = False
            front.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._body and (self._more or self._told) and not self.disconnected and not self.complete:
            if self._more:
                front.resume_reading()
            self._waiter = front.loop.create_future()
            await self._waiter
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._told = not self._more
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def send(self, event: Event) -> None:
        front = self._front
        if front.writing_paused:
            await front.drain()
        if self.disconnected or front.closed:
            return
        kind = event["type"]
        if kind == "http.response.body":
            self._send_body(event.get("body", b""), event.get("more_body", False))
        elif kind == "http.response.start":
            self._send_head(event["status"], event["headers"], event.get("trailers", False))
        else:
            front.transport.write(write_end(event["headers"]))
            self._finish()

    def inform(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Pass on an interim answer (102, 103); not to HTTP/1.0 (RFC 9110, section 15.2), nor to a client that is slow
        to take what there is."""
        front = self._front
        if self.started or self.disconnected or front.closed or front.writing_paused:
            return
        if self.scope["http_version"] == "1.1" and front.cycle is self:
            lines = b"".join([b"%b: %b\r\n" % item for item in headers])
            front.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, _INTERIM.get(status, b""), lines))

    def whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, stored: bytes = b"") -> bool:
        """Start and body in one step, without waiting; False when the client must be waited for.

        ``stored`` are header lines as they are sent, with the length of the body.
        """
        front = self._front
        if front.writing_paused:
            return False
        if not self.disconnected and not front.closed:
            if stored:
                self._left = len(body)
            self._send_head(status, headers, False, stored)
            self._send_body(body, False)
        return True

    # What the connection calls.

    def feed(self, data: bytes) -> int:
        """Part of the request's body; returns how much waits."""
        if self.complete or self.disconnected:
            return 0
        self._body.append(data)
        self._wake()
        return sum(map(len, self._body))

    def end(self) -> None:
        self._more = False
        if self._waiter is not None:
            self._wake()

    def disconnect(self) -> None:
        self.disconnected = True
        self._wake()

    def _send_head(self, status: int, headers: list[tuple[bytes, bytes]], trailers: bool, stored: bytes = b"") -> None:
        """Make the head; it is written with the first part of the body."""
        self.started = True
        if self._expects:  # the client waits for a 100 that will not come: nobody knows whether it sends the body
            self.keep_alive = False
        said_close = False
        lines = [STATUS_LINES[status], stored]
        for name, value in headers:
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and value == b"close":
                said_close = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if said_close:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self._bodyless = self.scope["method"] == "HEAD" or status in (204, 304)
        if self._left < 0 and not self._bodyless:
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                self._trailers = trailers
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _send_body(self, body: bytes, more: bool) -> None:
        data = b""
        if body and not self._bodyless:
            if self._chunked:
                data = write_chunk(body)
            else:
                data = body
                if self._left >= 0:
                    self._left -= len(body)
        if not more and self._chunked and not self._trailers:
            data += b"0\r\n\r\n"
        if self._head:
            data = self._head + data
            self._head = b""
        if data:
            self._front.transport.write(data)
        if not more and not self._trailers:
            self._finish()

    def _finish(self) -> None:
        self.complete = True
        if self._left > 0 and not self._bodyless:
            self._front.abort()  # shorter than it was announced
        elif self._more:
            self.keep_alive = False  # what comes is the rest of a body that nobody reads
        if self._waiter is not None:
            self._wake()
        self._front.finished(self)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
