"""The express lane: what most requests go through, without a task, a future or a coroutine.

A request without a body goes over an idle connection to its endpoint at once, or over the next that comes free. Its
answer comes back in the callbacks of that connection, as fast as the client takes it. What does not fit is handed over
as it stands to the ordinary path (flatwater.gateway.proxy), which a task goes: when a connection must be opened, and
when the attempt ends before its answer or with one that is worth a retry.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from flatwater.gateway.client import Turn
from flatwater.gateway.error import GatewayError, IdleTimeoutError, OverloadError, TotalTimeoutError
from flatwater.gateway.exchange import Exchange
from flatwater.gateway.forward import interim_to, may_have_trailers
from flatwater.gateway.head import Head
from flatwater.gateway.message import Header, Headers
from flatwater.gateway.request import Request, fresh_id, response_headers
from flatwater.gateway.trailer import announced
from flatwater.gateway.transit import LEFT, Receive, Scope, Send, Transit, problem

log = logging.getLogger(__name__)

Job = Callable[[Scope, Receive, Send], Awaitable[None]]


class Outlet(Protocol):
    """The client, as a server offers it (flatwater.gateway.cycle): what is written here goes out without waiting.

    ``lane`` is told when the client leaves, and when it takes more after ``paused`` was true.
    """

    lane: Any

    @property
    def paused(self) -> bool: ...
    def whole(self, status: int, headers: Headers, body: bytes, *, added: bytes = b"") -> bool: ...
    def begin(self, status: int, headers: Headers, *, trailers: bool = False, added: bytes = b"") -> None: ...
    def write(self, data: bytes, *, more: bool) -> None: ...
    def write_trailers(self, trailers: Headers) -> None: ...
    def inform(self, status: int, headers: Headers) -> None: ...
    def start(self, job: Job) -> bool:
        """Go on in a task; False when there may be none: then the client has been told so."""

    def abort(self) -> None:
        """Unless the answer is complete, or the client has left: it must not pass for a whole one."""


class Keeper(Protocol):
    """Who counts the requests: :class:`flatwater.gateway.proxy.Proxy`."""

    async def go_on(self, transit: Express) -> None: ...
    def broke_off(self, transit: Transit, error: GatewayError) -> None: ...
    def over(self, transit: Transit) -> None: ...


class Express(Transit):
    """A request in the express lane. ``via`` is the field that is added to its answer, with its id."""

    __slots__ = ("_client", "_head", "_keeper", "_outlet", "_trailers", "_via", "id", "turn")

    def __init__(self, keeper: Keeper, outlet: Outlet, head: Head, client: str, via: Header) -> None:
        super().__init__(_NO_SCOPE, _nothing, _nowhere)
        self.request = head.request  # all of it but for client, id and target: see ``forwarded``
        self.turn: Turn | None = None  # while it waits for a connection
        self.id = head.request.id or fresh_id()
        self._head = head
        self._client = client
        self._via = via
        self._keeper = keeper
        self._outlet = outlet
        self._trailers = False
        outlet.lane = self

    def begun(self, exchange: Exchange) -> None:
        """It was sent."""
        self.exchange = exchange
        exchange.follow = self.follow

    def not_begun(self, error: GatewayError | None) -> None:
        """No connection came free for it."""
        self.failure = error
        try:
            self.hand_over()
        except Exception as fault:
            self.fault(fault)

    def follow(self) -> None:
        """Something has changed at the upstream: pass on what there is, while the client takes it."""
        try:
            if self.started or self._begin():
                self._relay()
        except Exception as error:
            self.fault(error)

    def forwarded(self) -> Request:
        self.request = request = self._head.forwarded(self._client, self.id)
        return request

    def label(self) -> tuple[str, str, str, str]:
        return self._head.method, self._head.target, self._client, self.id.decode()

    @property
    def extra(self) -> Headers:
        """The fields that are added to the answer."""
        return [self._via, (b"x-request-id", self.id)]

    def resume(self) -> None:
        """The client takes more."""
        if self.started:
            self.follow()

    def fault(self, error: Exception) -> None:
        """End the request after an exception that nobody expected."""
        log.error("a request failed: %s %s", self._head.method, self._head.target, exc_info=error)
        if self._outlet.lane is self:
            self._outlet.abort()
            self._end()

    def leave(self) -> None:
        if self.task is not None:
            super().leave()
        elif not self.left:
            self.left = True
            self.status = LEFT
            self._outlet.abort()
            self._end()

    def refuse(self, error: GatewayError) -> None:
        """Answer without asking anybody."""
        self.forwarded()
        headers, body = problem(self, error)
        self.started = True
        self.status = error.status
        self._outlet.whole(error.status, headers, body)
        self._end()

    def hand_over(self) -> None:
        """Go on in a task, from here."""
        outlet = self._outlet
        if self.exchange is not None:
            self.exchange.follow = None
        self.attempts = 0  # it is counted when it fails
        self.forwarded()
        if not outlet.start(self._run):
            self.status = OverloadError.status
            self.reason = OverloadError.code
            self._end()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.left:
            return
        self._outlet.lane = None
        self.scope = scope
        self.receive = receive
        self.send = send
        await self._keeper.go_on(self)

    def _begin(self) -> bool:
        """The head; False while it is not here, or when the ordinary path takes over."""
        exchange = self.exchange
        upstream, backend = self.upstream, self.backend
        assert exchange is not None
        assert upstream is not None
        assert backend is not None
        outlet = self._outlet
        if exchange.interim:
            exchange.tell_interim(interim_to(outlet.inform, self._head.request))
        if not exchange.ready:
            if exchange.error is not None:
                self.hand_over()
            return False
        response = exchange.response
        status = response.status
        if upstream.service.retry.covers(status):
            self.hand_over()
            return False
        upstream.answered(backend, status, self.began)
        self.started = True
        self.status = status
        headers = response_headers(response.headers, (), bodyless=status in (204, 304))
        added = b"%b: %b\r\nx-request-id: %b\r\n" % (*self._via, self.id)
        if exchange.complete and not exchange.trailers and outlet.whole(status, headers, exchange.take(), added=added):
            self._end()
            return False
        self._trailers = may_have_trailers(self.request, response)
        if self._trailers:
            headers += announced(response.headers)
        outlet.begin(status, headers, trailers=self._trailers, added=added)
        return True

    def _relay(self) -> None:
        outlet = self._outlet
        exchange = self.exchange
        if exchange is None or (outlet.paused and not isinstance(exchange.error, IdleTimeoutError | TotalTimeoutError)):
            return
        data = exchange.take()
        if exchange.complete:
            outlet.write(data, more=False)
            if self._trailers:
                outlet.write_trailers(exchange.trailers)
            self._end()
            return
        outlet.write(data, more=True)
        if exchange.error is not None:
            self._keeper.broke_off(self, exchange.error)
            outlet.abort()
            self._end()

    def _end(self) -> None:
        if self.turn is not None:
            self.turn.give_up()
        self._outlet.lane = None
        self._keeper.over(self)


_NO_SCOPE: Scope = {}


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def _nowhere(event: Any) -> None:
    return None
