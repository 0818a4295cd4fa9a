"""A request on its way through the gateway, what is kept of it, and answers of the gateway's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.gateway.entry import fields
from flatwater.gateway.error import GatewayError, RateError
from flatwater.gateway.message import Headers
from flatwater.gateway.moment import write as write_date
from flatwater.gateway.request import Request

if TYPE_CHECKING:
    from flatwater.gateway.client import Answer
    from flatwater.gateway.found import Found
    from flatwater.gateway.upstream import Backend, Upstream

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

LEFT = 499
"""The status that is noted for clients that left before their answer (nginx's number; nobody gets it)."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A request that is over. ``at`` is the time of its arrival (Unix), ``reason`` why the gateway itself answered,
    ``cache`` what the cache said (``hit``, ``stale``, ``revalidated``, ``refused``, ``miss``, or nothing)."""

    at: float
    service: str
    method: str
    target: str
    status: int
    reason: str
    duration_s: float
    client: str
    id: str
    endpoint: str
    cache: str
    attempts: int


def record_bytes(record: Record) -> int:
    """What a record holds in memory, about."""
    return 500 + len(record.target) + len(record.id)


class Transit:
    """One request from arrival to end. ``leave`` is for whoever learns that the client has gone."""

    __slots__ = (
        "__weakref__",
        "attempts",
        "backend",
        "began",
        "cache",
        "exchange",
        "failure",
        "found",
        "left",
        "pump",
        "reason",
        "receive",
        "request",
        "scope",
        "seen",
        "send",
        "started",
        "status",
        "task",
        "unread",
        "upstream",
        "watch",
        "watchable",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.task: asyncio.Task[None] | None = None  # that may be cancelled when the client leaves
        self.began = time.perf_counter()
        self.request: Request | None = None
        self.upstream: Upstream | None = None
        self.backend: Backend | None = None
        self.exchange: Answer | None = None
        self.failure: GatewayError | None = None  # of an attempt that ended before there was an exchange
        self.pump: asyncio.Task[None] | None = None  # sends a long body upstream, then watches the client
        self.watch: asyncio.Task[None] | None = None  # watches the client of a request that takes long
        self.watchable = False  # nobody else calls receive
        self.seen = False  # by a sweep
        self.unread = False  # part of the request's body has not been read
        self.started = False  # the answer's head was sent
        self.left = False
        self.status = 0
        self.reason = ""
        self.cache = ""
        self.found: Found | None = None  # what was looked up for it already
        self.attempts = 0

    def leave(self) -> None:
        """The client has gone: end the request wherever it is."""
        if not self.left and self.task is not None:
            self.left = True
            self.task.cancel()

    def forwarded(self) -> Request | None:
        """The request, if it was well formed."""
        return self.request

    def label(self) -> tuple[str, str, str, str] | None:
        """Its method, path, client and id, for the history."""
        request = self.request
        if request is None:
            return None
        return request.method.decode(), request.path.decode("latin-1"), request.client, request.id.decode()

    def attach(self, backend: Backend) -> Backend:
        """The endpoint that is asked from now on, until ``detach``."""
        backend.active += 1
        self.backend = backend
        return backend

    def detach(self) -> None:
        """Give back the connection and end the tasks of this request. Idempotent."""
        if self.exchange is not None:
            self.exchange.release()
            self.exchange = None
        if self.backend is not None:
            self.backend.active -= 1
            self.backend = None
        for task in (self.pump, self.watch):
            if task is not None:
                task.cancel()
        self.pump = self.watch = None

    async def whole(self, status: int, headers: Headers, body: bytes, *, stored: bytes = b"") -> None:
        """Send a complete answer: in one step where the server offers that (flatwater.gateway.cycle).

        ``stored`` are header lines as they are sent, which go before ``headers``.
        """
        self.started = True
        self.status = status
        at_once = self.scope.get("flatwater.whole")
        if at_once is None or not at_once(status, headers, body, stored):
            headers = [*fields(stored), *headers]
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            await self.send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: Headers, *, trailers: bool = False) -> None:
        """Send the answer's head."""
        if self.unread:
            headers = [*headers, (b"connection", b"close")]  # what follows on it cannot be told from the body
        self.started = True
        self.status = status
        event: Event = {"type": "http.response.start", "status": status, "headers": headers}
        if trailers:
            event["trailers"] = True
        await self.send(event)


async def refuse(transit: Transit, error: GatewayError) -> None:
    """Answer with a problem document (RFC 9457) that says why."""
    headers, body = problem(transit, error)
    if transit.request is None:  # it was malformed: nobody knows where the next one begins
        transit.unread = True
    await transit.start(error.status, headers)
    await transit.send({"type": "http.response.body", "body": body})


def problem(transit: Transit, error: GatewayError) -> tuple[Headers, bytes]:
    """Fields and body of that answer; its code becomes the request's reason."""
    request = transit.request
    try:
        title = HTTPStatus(error.status).phrase
    except ValueError:
        title = "Error"
    told = {
        "type": "about:blank",
        "title": title,
        "status": error.status,
        "reason": error.code,
        "detail": error.message,
        "request_id": request.id.decode() if request is not None and hasattr(request, "id") else "",
    }
    body = msgspec.json.encode(told)  # a HEAD is told its length, and servers send it no body
    headers: Headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"date", write_date(time.time())),
        (b"x-flatwater-reason", error.code.encode()),
        (b"x-request-id", told["request_id"].encode()),  # type: ignore[attr-defined]
    ]
    if error.status in (429, 503):
        headers.append((b"retry-after", error.hint.encode() if isinstance(error, RateError) else b"1"))
    transit.reason = error.code
    return headers, body
