"""Sending a request to an endpoint, once more if that is allowed, and its answer to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from flatwater.bounded import TaskGroup
from flatwater.errors import LimitError
from flatwater.gateway.client import Answer
from flatwater.gateway.error import BodySizeError, FramingError, GatewayError, PendingFullError, RefusedError
from flatwater.gateway.exchange import Tell
from flatwater.gateway.head import Head
from flatwater.gateway.message import Headers, RequestHead, ResponseHead, write_request
from flatwater.gateway.request import Inspector, Request, response_headers
from flatwater.gateway.retry import immediate, pause_s, repeatable
from flatwater.gateway.trailer import announced, permitted
from flatwater.gateway.transit import Event, Transit
from flatwater.gateway.upstream import Backend, Upstream

if TYPE_CHECKING:
    from flatwater.gateway.express import Express

_CONTINUE_S = 1.0  # how long an upstream may think about "Expect: 100-continue" (RFC 9110, 10.1.1)


_FLUSH = {"type": "http.response.body", "body": b"", "more_body": True}  # ASGI servers hold the head until then


class Recorder(Protocol):
    """Takes what passes: the cache's collector of a body."""

    def add(self, chunk: bytes) -> None: ...
    def commit(self) -> bool: ...


class Forwarder:
    """``ask`` gives the answer's head, with the exchange in the transit; ``relay`` sends it on.

    ``ask_now`` is for requests without a body: it asks an endpoint without waiting for anything, if that can be done.
    ``ask`` goes on from there: the endpoint that was chosen, the exchange that was begun, its failure.
    """

    def __init__(self, inspector: Inspector, tasks: TaskGroup, *, linger_s: float = 1.0) -> None:
        self._inspector = inspector
        self._tasks = tasks
        self._linger_s = linger_s

    async def ask(self, transit: Transit, upstream: Upstream, headers: Headers) -> ResponseHead:
        """Raises GatewayError when there is no answer."""
        request = transit.request
        assert request is not None
        head = self._head(request, upstream, headers)
        body = b""
        last = True
        if request.length != 0:
            last = False
            transit.unread = True
            if not request.expects:
                body, last = await self._body(transit, request, head)
        if last:
            transit.watchable = True
        return await self._attempts(transit, upstream, head, body, last)

    def ask_now(self, transit: Express, upstream: Upstream, head: Head, client: str) -> bool:
        """Over an idle connection of the endpoint whose turn it is, or over the next one that comes free; False when
        that takes a task. Raises GatewayError when no endpoint can be asked."""
        transit.attempts = 1
        backend = transit.attach(upstream.choose())
        request = head.request
        host = upstream.host or request.host
        if upstream.service.host_header == "endpoint" or not request.host:
            host = backend.authority
        sent = head.sent
        if sent is not None and sent[0] == client and sent[1] == host:
            data = sent[2] + transit.id + b"\r\n\r\n"
        else:
            try:
                data = self._written(head, client, host, transit.id)
            except GatewayError:
                transit.detach()
                return False  # the ordinary path meets it too, and decides what follows
        exchange = backend.client.send_now(request.method, data)
        if exchange is not None:
            transit.begun(exchange)
            return True
        transit.turn = backend.client.send_in_turn(request.method, data, transit)
        return transit.turn is not None

    async def relay(
        self,
        transit: Transit,
        response: ResponseHead,
        extra: Headers,
        *,
        recorder: Recorder | None = None,
        settled: Callable[[bool], None] | None = None,
    ) -> None:
        """The answer to the client, with back-pressure. ``settled`` is told once whether ``recorder`` kept it."""
        exchange = transit.exchange
        assert exchange is not None
        status = response.status
        headers = response_headers(response.headers, extra, bodyless=status in (204, 304))
        if exchange.complete and recorder is None and not transit.unread and not exchange.trailers:
            await transit.whole(status, headers, exchange.take())
            return
        offered = "http.response.trailers" in transit.scope.get("extensions", ())
        trailers = offered and may_have_trailers(transit.request, response)
        if trailers:
            headers += announced(response.headers)
        await transit.start(status, headers, trailers=trailers)
        data = exchange.take()
        if not data and not exchange.complete:
            await transit.send(_FLUSH)
        while True:
            if data and recorder is not None:
                recorder.add(data)
            if exchange.complete:
                rest = exchange.take()
                if not rest:
                    break
                await transit.send({"type": "http.response.body", "body": data, "more_body": True})
                data = rest
                continue
            if data:
                await transit.send({"type": "http.response.body", "body": data, "more_body": True})
            data = await exchange.read()
        if recorder is not None and settled is not None:
            settled(recorder.commit())
        if transit.pump is not None and transit.unread:
            await self._linger(transit, data)
            data = b""
        await transit.send({"type": "http.response.body", "body": data})
        if trailers:
            await transit.send({"type": "http.response.trailers", "headers": exchange.trailers})

    async def _attempts(
        self, transit: Transit, upstream: Upstream, head: RequestHead, body: bytes, last: bool
    ) -> ResponseHead:
        tried: list[Backend] = []
        repeated = fresh = False
        retrying = False
        try:
            while True:
                transit.attempts += 1
                error: GatewayError | None = None
                response: ResponseHead | None = None
                backend = transit.backend or transit.attach(upstream.choose(tried))
                try:
                    response = await self._attempt(transit, upstream, backend, head, body, last, fresh)
                    if not upstream.service.retry.covers(response.status):
                        return response
                except GatewayError as failure:
                    error = failure
                    upstream.failed(backend, failure)
                kept = last or (error is not None and error.unsent and transit.pump is None)
                if not repeatable(head.method, body_kept=kept, error=error):
                    return _final(response, error)
                if immediate(error, repeated=repeated):
                    repeated = fresh = True
                    transit.detach()
                    continue
                if transit.attempts - repeated >= upstream.service.retry.attempts:
                    return _final(response, error)
                if not retrying and not upstream.breaker.enter_retry():
                    return _final(response, error)
                retrying = True
                if not upstream.budget.spend():
                    return _final(response, error)
                transit.detach()
                tried.append(backend)
                await asyncio.sleep(pause_s(upstream.service.retry, transit.attempts + 1 - repeated))
        finally:
            if retrying:
                upstream.breaker.leave_retry()

    async def _attempt(
        self,
        transit: Transit,
        upstream: Upstream,
        backend: Backend,
        head: RequestHead,
        body: bytes,
        last: bool,
        fresh: bool,
    ) -> ResponseHead:
        request = transit.request
        assert request is not None
        exchange = transit.exchange
        began = transit.began if exchange is not None else perf_counter()
        if transit.failure is not None:
            failure, transit.failure = transit.failure, None
            raise failure
        if exchange is None:
            self._address(head, request, upstream, backend)
            if request.length == 0 and not fresh:
                exchange = backend.client.begin_now(head)
            if exchange is None:
                exchange = await backend.client.begin(head, body=body, length=request.length, last=last, fresh=fresh)
            transit.exchange = exchange
        if not last:
            if request.expects:
                await self._go_ahead(exchange)
            if not exchange.ready:
                self._start_pump(transit, exchange, len(body), upstream.service.max_body_bytes)
        response = await exchange.head(_teller(transit))
        upstream.answered(backend, response.status, began if last else 0.0)  # a client's time is not the endpoint's
        return response

    def _written(self, head: Head, client: str, host: bytes, id: bytes) -> bytes:
        """The bytes of a request without a body. All but the id is kept, for it comes last and changes most."""
        request = head.request
        lines, count = self._inspector.added(request, client, id)
        fields = [(b"host", host), *request.headers]
        data = write_request(RequestHead(request.method, head.path + request.query, fields, lines, count), 0)
        end = id + b"\r\n\r\n"
        if data.endswith(end):
            head.sent = client, host, data.removesuffix(end)
        return data

    def _head(self, request: Request, upstream: Upstream, headers: Headers) -> RequestHead:
        host = upstream.host or request.host
        lines, count = self._inspector.forwarded(request)
        fields = [(b"host", host), *headers]
        if request.expects and request.length != 0:
            fields.append((b"expect", b"100-continue"))
        if request.length is None and upstream.service.request_trailers:
            fields += announced(request.special.items())
        return RequestHead(request.method, request.target, fields, lines, count)

    def _address(self, head: RequestHead, request: Request, upstream: Upstream, backend: Backend) -> None:
        if upstream.service.host_header == "endpoint" or not request.host:
            head.headers[0] = (b"host", backend.authority)

    async def _body(self, transit: Transit, request: Request, head: RequestHead) -> tuple[bytes, bool]:
        """The part of the body that is here, and whether that is all; then ``head`` gets the trailers."""
        event = await transit.receive()
        if event["type"] == "http.disconnect":
            transit.left = True
            raise asyncio.CancelledError
        body: bytes = event.get("body", b"")
        last = not event.get("more_body") or (request.length is not None and len(body) >= request.length)
        if last:
            transit.unread = False
            head.trailers = _trailers(transit, event)
            if request.length is not None and len(body) != request.length:
                raise FramingError("the body has another length than its Content-Length")
        return body, last

    async def _go_ahead(self, exchange: Answer) -> None:
        try:
            async with asyncio.timeout(_CONTINUE_S):
                await exchange.continued()
        except TimeoutError:
            return

    def _start_pump(self, transit: Transit, exchange: Answer, sent: int, max_bytes: int) -> None:
        try:
            transit.pump = self._tasks.start(_pump(transit, exchange, sent, max_bytes), name="body of a request")
        except LimitError as error:
            raise PendingFullError(str(error)) from None

    async def _linger(self, transit: Transit, data: bytes) -> None:
        """The answer came before the request's end: let the client notice before the connection closes, or the reset
        that unread bytes cause may destroy the answer on its way."""
        if data:
            await transit.send({"type": "http.response.body", "body": data, "more_body": True})
        if transit.pump is not None:
            await asyncio.wait([transit.pump], timeout=self._linger_s)


async def _pump(transit: Transit, exchange: Answer, sent: int, max_bytes: int) -> None:
    """The rest of a request's body, from the client to the upstream."""
    wanted = True
    more = True
    event: Event = {}
    try:
        while more:
            event = await transit.receive()
            if event["type"] == "http.disconnect":
                transit.leave()
                return
            data: bytes = event.get("body", b"")
            sent += len(data)
            if sent > max_bytes:
                raise BodySizeError(f"more than {max_bytes} bytes")
            more = bool(event.get("more_body"))
            if wanted and data:
                wanted = await exchange.write(data)
        if wanted:
            await exchange.end(_trailers(transit, event))
        transit.unread = False
    except RefusedError as error:
        exchange.fail(error)
        return
    except GatewayError:
        return  # the reader of the answer gets it too
    transit.watchable = True


def _trailers(transit: Transit, event: Event) -> Headers:
    """Those of the request that the upstream gets."""
    upstream = transit.upstream
    wanted = upstream is not None and upstream.service.request_trailers
    return permitted(event.get("flatwater.trailers", ())) if wanted else []


async def watch(transit: Transit) -> None:
    """Wait for the client to leave."""
    while (await transit.receive())["type"] != "http.disconnect":
        pass
    transit.leave()


def _teller(transit: Transit) -> Tell | None:
    """What passes interim answers on, where the ASGI server can (RFC 9110, section 15.2: a proxy must)."""
    inform: Tell | None = transit.scope.get("extensions", {}).get("flatwater.interim")
    request = transit.request
    return None if inform is None or request is None else interim_to(inform, request)


def interim_to(inform: Tell, request: Request) -> Tell:
    """Interim answers without what is the upstream connection's own. The 100 that the client waits for comes when its
    body is read."""

    def tell(status: int, headers: Headers) -> None:
        if status != 100 or not request.expects:
            inform(status, response_headers(headers, (), bodyless=True, interim=True))

    return tell


def _final(response: ResponseHead | None, error: GatewayError | None) -> ResponseHead:
    if error is not None:
        raise error
    assert response is not None
    return response


def may_have_trailers(request: Request | None, response: ResponseHead) -> bool:
    """Whether fields may follow the body, and the client takes them (RFC 9110, section 6.5.1)."""
    if request is None or not request.takes_trailers:
        return False
    return any(name == b"transfer-encoding" for name, _ in response.headers)
