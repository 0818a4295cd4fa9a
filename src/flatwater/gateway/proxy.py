"""The gateway as an ASGI app: what happens to a request, from its arrival to the record that is kept of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from flatwater.bounded import History, TaskGroup
from flatwater.errors import ClosedError, LimitError
from flatwater.gateway.caching import Caching, asked_key
from flatwater.gateway.error import GatewayError, OverloadError, UpgradeError
from flatwater.gateway.express import Express, Outlet
from flatwater.gateway.forward import Forwarder, watch
from flatwater.gateway.found import Answer, Found
from flatwater.gateway.head import Head, Heads
from flatwater.gateway.message import STATUS_LINES, Headers
from flatwater.gateway.options import ends_here, may_end_here, tell_options
from flatwater.gateway.request import Inspector, Request, fresh_id
from flatwater.gateway.route import Routes
from flatwater.gateway.shelf import MAX_INLINE_BYTES
from flatwater.gateway.transit import LEFT, Receive, Record, Scope, Send, Transit, refuse
from flatwater.gateway.tunnel import tunnel
from flatwater.gateway.upstream import Upstream
from flatwater.gateway.websocket import serve_websocket

log = logging.getLogger(__name__)

Write = Callable[[bytes], None]

Known = tuple[Request, Upstream, bytes, Found | None]
"""A request that was checked, its service, the path that this gets, and what was found in the cache if that was asked.
"""


class Hook(Protocol):
    """Work after a request, in the background: nobody waits for it, and its failures are logged and counted."""

    async def after(self, request: Request, record: Record) -> None: ...


class Pressure(Protocol):
    """The overload manager's word, read at every request."""

    @property
    def refusing(self) -> bool: ...
    @property
    def draining(self) -> bool:
        """Whether connections should close after their answer."""

    def refuse(self) -> int:
        """Count a refused request."""

    def drain(self) -> None:
        """Count a connection that closes after its answer."""


class Proxy:
    """Answers one request per call. ``caching`` is set, and the routes are replaced with ``use``, when the
    configuration is applied."""

    def __init__(
        self,
        inspector: Inspector,
        tasks: TaskGroup,
        hooks: TaskGroup,
        history: History[Record],
        heads: Heads,
        *,
        max_requests: int,
        linger_s: float,
        pressure: Pressure | None = None,
    ) -> None:
        self.routes: Routes[Upstream] = Routes()
        self.caching: Caching | None = None
        self.heads = heads
        self.forwarder = Forwarder(inspector, tasks, linger_s=linger_s)
        self.hooks: list[Hook] = []
        self.draining = False
        self.requests = self.peak = self.unwatched = 0
        self.refused: dict[str, int] = {}
        self._inspector = inspector
        self._tasks = tasks
        self._after = hooks
        self._history = history
        self._max_requests = max_requests
        self._pressure = pressure
        self._transits: dict[Transit, None] = {}
        self._via = (b"via", inspector.via)
        self._hit_lines = b"via: %b\r\nx-request-id: %%b\r\n" % inspector.via.replace(b"%", b"%%")

    def use(self, routes: Routes[Upstream]) -> None:
        """From here on new requests go by ``routes``."""
        self.routes = routes
        self.heads.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            limit = self._inspector.max_message_bytes
            await serve_websocket(self, scope, receive, send, self._tasks, max_message_bytes=limit)
            return
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        transit = Transit(scope, receive, send)
        self.requests += 1
        self._transits[transit] = None
        await self._see_through(transit, self._answer(transit))

    async def _see_through(self, transit: Transit, answer: Awaitable[None]) -> None:
        """Until the request is over, however it ends."""
        transit.task = asyncio.current_task()
        try:
            await answer
        except asyncio.CancelledError:
            if not transit.left:
                raise
            transit.status = LEFT
            if transit.task is not None:
                transit.task.uncancel()
        except GatewayError as error:
            await self._fail(transit, error)
        finally:
            self.over(transit)

    def recognise(
        self, method: str, version: str, path: bytes, query: bytes, fields: Headers, scheme: str, keep_alive: bool
    ) -> Head | None:
        """What follows from the head of a request without a body; None when it is to be refused, which the app does.

        For servers that have the whole request at hand (flatwater.gateway.front), as ``quick``.
        """
        try:
            request = self._inspector.check(method, version, path, query, fields, scheme)
            if request.method == b"OPTIONS" and may_end_here(request):
                return None
            upstream, rest = self.routes.find(request.host, request.path)
        except GatewayError:
            return None
        cached = upstream.quick and request.length == 0 and not request.upgrade and not request.expects
        key = asked_key(request, upstream) if cached else b""
        return Head(method, request, upstream, rest, fields, key, keep_alive)

    def glance(self, head: Head, fields: Headers, id: bytes, client: str, write: Write) -> bool:
        """Answer a plain GET from the cache as ``quick`` does, if it asks for what ``head`` does, with other ``fields``
        that demand nothing, and the ``id`` that it has given, if any. False when nothing was written."""
        if self.hooks or not self._may_hit():
            return False
        began = time.perf_counter()
        assert self.caching is not None
        plain = self.caching.fresh(head.key, fields)
        if plain is not None:
            self._hit(head, id, client, *plain, "hit", began, write)
        return plain is not None

    def _may_hit(self) -> bool:
        pressure = self._pressure
        calm = pressure is None or not (pressure.draining or pressure.refusing)
        return calm and self.caching is not None and not self.draining

    def quick(self, head: Head, client: str, write: Write) -> Known | None:
        """Answer from the cache at once, without a task. Otherwise nothing is written, and what is known so far is
        returned: the app, which must be called, goes on from there when it is ``flatwater.known`` in its scope."""
        caching = self.caching
        found: Found | None = None
        if head.key and caching is not None and self._may_hit():
            began = time.perf_counter()
            if head.plain and (plain := caching.fresh(head.key, head.request.headers)) is not None:
                self._hit(head, head.request.id, client, *plain, "hit", began, write)
                return None
            found = caching.lookup(head.request, head.upstream, head.key)
            if type(found) is Answer:
                self._hit(
                    head, head.request.id, client, found.status, found.lines, found.body, found.kind, began, write
                )
                return None
        return head.request.arrived(client), head.upstream, head.path, found

    def _hit(
        self,
        head: Head,
        id: bytes,
        client: str,
        status: int,
        lines: bytes,
        body: bytes,
        kind: str,
        began: float,
        write: Write,
    ) -> None:
        id = id or fresh_id()
        close = b"\r\n" if head.keep_alive else b"connection: close\r\n\r\n"
        told = self._hit_lines % id
        if len(body) <= MAX_INLINE_BYTES:
            write(b"".join((STATUS_LINES[status], lines, told, close, body)))
        else:  # to copy it would cost more than to write twice
            write(b"".join((STATUS_LINES[status], lines, told, close)))
            write(body)
        self.requests += 1
        duration_s = time.perf_counter() - began
        upstream = head.upstream
        upstream.hit(status, duration_s)
        record = Record(
            time.time() - duration_s,
            upstream.name,
            head.method,
            head.target,
            status,
            "",
            duration_s,
            client,
            id.decode(),
            "",
            kind,
            0,
        )
        self._history.add(record)
        if self.hooks:
            request = head.request.arrived(client)
            request.id = id
            self._run_hooks(request, record)

    def express(self, outlet: Outlet, head: Head, client: str) -> bool:
        """Forward a request without a body at once, without a task (flatwater.gateway.express); False when the app must
        be called. For those whose head says that it may be tried."""
        if self._stressed():
            return False
        transit = Express(self, outlet, head, client, self._via)
        upstream = head.upstream
        self.requests += 1
        self._transits[transit] = None
        try:
            upstream.admit(client, 0)
            transit.upstream = upstream
            if not self.forwarder.ask_now(transit, upstream, head, client):
                transit.hand_over()
        except GatewayError as error:
            transit.refuse(error)
            self._count(transit, error)
        except Exception as error:
            transit.fault(error)
        return True

    async def go_on(self, transit: Express) -> None:
        """A request that the express lane hands over."""
        await self._see_through(transit, self._forward(transit, transit.extra))

    def __len__(self) -> int:
        """How many requests are under way."""
        return len(self._transits)

    def sweep(self, now: float) -> None:
        """Watch the clients of requests that take long: those of short ones cost no task."""
        for transit in list(self._transits):
            if not transit.seen:
                transit.seen = True
            elif transit.watchable and transit.watch is None and not transit.left:
                try:
                    transit.watch = self._tasks.start(watch(transit), name="watch of a client")
                except (LimitError, ClosedError):
                    self.unwatched += 1

    def abort(self) -> None:
        """End every request, as if its client had left."""
        for transit in list(self._transits):
            transit.leave()

    def _stressed(self) -> bool:
        """Whether requests need a closer look, because of what the gateway is short of."""
        pressure = self._pressure
        short = self.draining or (pressure is not None and (pressure.draining or pressure.refusing))
        return short or len(self._transits) >= self._max_requests

    async def _answer(self, transit: Transit) -> None:
        pressure = self._pressure
        if pressure is not None and pressure.refusing:
            pressure.refuse()
            raise OverloadError
        if len(self._transits) > self._max_requests:
            raise OverloadError(f"{self._max_requests} requests are under way")
        known = transit.scope.get("flatwater.known")
        request = transit.request = self._inspector.inspect(transit.scope) if known is None else known[0]
        transit.unread = request.length != 0
        if request.method == b"OPTIONS" and ends_here(request):
            await tell_options(transit, self._via)
            return
        if known is None:
            upstream, path = self.routes.find(request.host, request.path)
        else:
            _, upstream, path, transit.found = known
        request.target = path + request.query
        upstream.admit(request.client, request.length)
        transit.upstream = upstream
        extra: Headers = [self._via, (b"x-request-id", request.id)]
        if self.draining or (pressure is not None and pressure.draining):
            extra.append((b"connection", b"close"))
            if not self.draining and pressure is not None:
                pressure.drain()
        if request.upgrade.lower() == b"websocket":
            await self._upgrade(transit, upstream, extra)
        elif self.caching is not None and upstream.service.cache.enabled and _is_cached(request):
            transit.unread = False
            await self.caching.answer(transit, upstream, extra)
        else:
            await self._forward(transit, extra)

    async def _forward(self, transit: Transit, extra: Headers) -> None:
        request, upstream = transit.request, transit.upstream
        assert request is not None
        assert upstream is not None
        transit.unread = False
        response = await self.forwarder.ask(transit, upstream, request.headers)
        await self.forwarder.relay(transit, response, extra)

    async def _upgrade(self, transit: Transit, upstream: Upstream, extra: Headers) -> None:
        if not upstream.service.websockets:
            raise UpgradeError("the service allows none")
        await tunnel(transit, upstream, self._inspector, self.forwarder, self._tasks, extra)

    async def _fail(self, transit: Transit, error: GatewayError) -> None:
        if transit.started:  # too late to say so: the connection must end in a way that cannot be taken for a success
            self.broke_off(transit, error)
            abort = transit.scope.get("extensions", {}).get("flatwater.abort")
            if abort is None:
                raise error
            abort()
            return
        await refuse(transit, error)
        self._count(transit, error)

    def _count(self, transit: Transit, error: GatewayError) -> None:
        if transit.upstream is None:
            self.refused[error.code] = self.refused.get(error.code, 0) + 1

    def broke_off(self, transit: Transit, error: GatewayError) -> None:
        """The answer of a request cannot be completed."""
        transit.reason = error.code
        log.info("an answer of %s broke off: %s", transit.upstream and transit.upstream.name, error)

    def over(self, transit: Transit) -> None:
        """A request has ended: count and note it, give back what it held."""
        del self._transits[transit]
        backend = transit.backend
        endpoint = "" if backend is None else backend.url
        transit.detach()
        duration_s = time.perf_counter() - transit.began
        upstream = transit.upstream
        if not transit.status:
            transit.status = LEFT if transit.left else 500
        if upstream is not None:
            upstream.observe(transit, duration_s)
        label = transit.label()
        if label is None:
            return
        method, target, client, id = label
        record = Record(
            time.time() - duration_s,
            "" if upstream is None else upstream.name,
            method,
            target,
            transit.status,
            transit.reason,
            duration_s,
            client,
            id,
            endpoint,
            transit.cache,
            transit.attempts,
        )
        self._history.add(record)
        if self.hooks and (request := transit.forwarded()) is not None:
            self._run_hooks(request, record)

    def _run_hooks(self, request: Request, record: Record) -> None:
        for hook in self.hooks:
            try:
                self._after.start(hook.after(request, record), name="work after a request", context=record.id)
            except (LimitError, ClosedError) as error:
                log.warning("work after a request is left out: %s", error)


def _is_cached(request: Request) -> bool:
    """Whether the cache has a say: not in a GET with a body, which no key tells apart; but a POST may change what is
    stored (RFC 9111, section 4.4)."""
    return request.length == 0 or request.method not in (b"GET", b"HEAD")


async def _lifespan(receive: Receive, send: Send) -> None:
    """It is acknowledged."""
    while True:
        event = await receive()
        await send({"type": event["type"] + ".complete"})
        if event["type"] == "lifespan.shutdown":
            return
