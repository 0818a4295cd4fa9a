"""One request and its answer between the front's protocol and the ASGI app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from flatwater.gateway.message import STATUS_LINES, Headers, write_chunk, write_end

if TYPE_CHECKING:
    from flatwater.gateway.front import FrontConnection
    from flatwater.gateway.head import Head

log = logging.getLogger(__name__)

Event = MutableMapping[str, Any]
Job = Callable[[Any, Any, Any], Awaitable[None]]

_INTERIM = {100: b"Continue", 102: b"Processing", 103: b"Early Hints"}
_ERROR: list[tuple[bytes, bytes]] = [(b"content-length", b"0"), (b"x-flatwater-reason", b"internal")]


class Lane(Protocol):
    """What goes on without a task: see :class:`flatwater.gateway.express.Express`."""

    def resume(self) -> None: ...
    def leave(self) -> None: ...


class Cycle:
    """``receive`` and ``send`` as ASGI has them; at most 64 KiB (and one read) of a request's body wait here."""

    __slots__ = (
        "_body",
        "_bodyless",
        "_chunked",
        "_expects",
        "_fields",
        "_front",
        "_head",
        "_left",
        "_more",
        "_told",
        "_trailers",
        "_waiter",
        "complete",
        "disconnected",
        "head",
        "keep_alive",
        "lane",
        "method",
        "scope",
        "started",
        "version",
    )

    def __init__(
        self, front: FrontConnection, method: str, version: str, *, keep_alive: bool, expects: bool = False
    ) -> None:
        self._front = front
        self.method = method
        self.version = version
        self.keep_alive = keep_alive
        self._expects = expects
        self.scope: Event = {}
        self.head: Head | None = None  # what the scope follows from, when a task needs it
        self.lane: Lane | None = None
        self.started = self.complete = self.disconnected = False
        self._body: list[bytes] = []
        self._more = True  # the request's body has not ended yet
        self._told = False  # the app knows that it has
        self._fields: Headers | None = None  # the request's trailers
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._left = -1  # bytes of a sized answer to come
        self._chunked = self._trailers = self._bodyless = False

    @property
    def receiving(self) -> bool:
        """Whether the request's body has not ended yet."""
        return self._more

    async def run(self, app: Job) -> None:
        """The request's task."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("a request failed: %s %s", self.scope["method"], self.scope["path"])
            if not self.started and not self.disconnected:
                self.keep_alive = False
                await self.send({"type": "http.response.start", "status": 500, "headers": _ERROR})
                await self.send({"type": "http.response.body"})
        finally:
            self.abort()
            if self._expects:
                self.keep_alive = False
            self.scope = {}  # it names this cycle's methods: nothing is left for the collector

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
        event = {"type": "http.request", "body": body, "more_body": self._more}
        if self._fields is not None and not self._more:
            event["flatwater.trailers"] = self._fields
        return event

    async def send(self, event: Event) -> None:
        front = self._front
        if front.writing_paused:
            await front.drain()
        if self.disconnected or front.closed:
            return
        kind = event["type"]
        if kind == "http.response.body":
            self.write(event.get("body", b""), more=event.get("more_body", False))
        elif kind == "http.response.start":
            self.begin(event["status"], event["headers"], trailers=event.get("trailers", False))
        else:
            self.write_trailers(event["headers"])

    def inform(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Pass on an interim answer (1xx); not to HTTP/1.0 (RFC 9110, section 15.2), nor to a client that is slow
        to take what there is."""
        front = self._front
        if self.started or self.disconnected or front.closed or front.writing_paused:
            return
        if self.version == "1.1" and front.cycle is self:
            lines = b"".join([b"%b: %b\r\n" % item for item in headers])
            front.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, _INTERIM.get(status, b""), lines))

    def whole(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, stored: bytes = b"", added: bytes = b""
    ) -> bool:
        """Start and body in one step, without waiting; False when the client must be waited for.

        ``stored`` are header lines as they are sent, with the length of the body; ``added`` are more lines.
        """
        front = self._front
        if front.writing_paused:
            return False
        if not self.disconnected and not front.closed:
            if stored:
                self._left = len(body)
            self.begin(status, headers, stored=stored, added=added)
            self.write(body, more=False)
        return True

    def begin(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        *,
        trailers: bool = False,
        stored: bytes = b"",
        added: bytes = b"",
    ) -> None:
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
            lines += (name, b": ", value, b"\r\n")
        lines.append(added)
        if said_close:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self._bodyless = self.method == "HEAD" or status in (204, 304)
        if self._left < 0 and not self._bodyless:
            if self.version == "1.1":
                self._chunked = True
                self._trailers = trailers
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def write(self, body: bytes, *, more: bool) -> None:
        """Part of the answer's body; without ``more`` the last one."""
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
            self._front.silent_from = 0.0
        if not more and not self._trailers:
            self._finish()

    def write_trailers(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The fields after the body, if ``begin`` was told of them and the client can have them."""
        if self._trailers:
            self._front.transport.write(write_end(trailers))
            self._finish()

    def abort(self) -> None:
        """Cut the connection unless the answer is complete: what the client has must not pass for a whole one."""
        if not self.complete and not self.disconnected and self._front.side is None:
            self._front.abort()

    def start(self, app: Job) -> bool:
        """Go on in a task; False when there can be none: then the client has been told."""
        if self.head is not None:
            self.scope = self._front.scope(self, self.head)
        return self._front.run(self, app)

    @property
    def paused(self) -> bool:
        """Whether the client is slow to take what there is."""
        return self._front.writing_paused

    # What the connection calls.

    def feed(self, data: bytes) -> int:
        """Part of the request's body; returns how much waits."""
        if self.complete or self.disconnected:
            return 0
        self._body.append(data)
        self._wake()
        return sum(map(len, self._body))

    def trail(self, name: bytes, value: bytes) -> int:
        """A field after the request's body; returns how many there are."""
        self._fields = [*(self._fields or ()), (name, value)]
        return len(self._fields)

    def end(self) -> None:
        """That was all of the request's body."""
        self._more = False
        if self._waiter is not None:
            self._wake()

    def resume(self) -> None:
        """The client takes more."""
        if self.lane is not None:
            self.lane.resume()

    def disconnect(self) -> None:
        self.disconnected = True
        self._wake()
        if self.lane is not None:
            self.lane.leave()

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
