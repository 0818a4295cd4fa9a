"""Driving the HTTP cache: look-up, single flight, validation, stale answers, recording."""

from __future__ import annotations

import logging
from functools import lru_cache

from flatwater.bounded import TaskGroup
from flatwater.errors import LimitError
from flatwater.gateway.cache import ERRORS, HttpCache, cache_key
from flatwater.gateway.error import GatewayError
from flatwater.gateway.flight import Flights, Lead
from flatwater.gateway.forward import Forwarder
from flatwater.gateway.found import Answer, Found, Miss, Stale
from flatwater.gateway.message import Headers, ResponseHead
from flatwater.gateway.request import Request, response_headers
from flatwater.gateway.transit import Transit
from flatwater.gateway.upstream import Upstream

log = logging.getLogger(__name__)

_MAX_REMEMBERED_BYTES = 256


class Caching:
    """Answers requests of the services that have a cache."""

    def __init__(self, cache: HttpCache, flights: Flights, forwarder: Forwarder, tasks: TaskGroup) -> None:
        self._cache = cache
        self.fresh = cache.fresh
        self._flights = flights
        self._forwarder = forwarder
        self._tasks = tasks

    async def answer(self, transit: Transit, upstream: Upstream, extra: Headers) -> None:
        request = transit.request
        assert request is not None
        found: Found = transit.found or self.lookup(request, upstream)
        if isinstance(found, Answer):
            await self._send(transit, found, extra)
        elif isinstance(found, Stale) and found.while_revalidating:
            stale = self._cache.stale_answer(found)
            self._revalidate(request, upstream, found)
            await self._send(transit, stale, extra)
        elif request.method == b"GET" and found.storable and upstream.service.cache.single_flight:
            await self._together(transit, upstream, found, extra)
        else:
            await self._fetch(transit, upstream, found, extra, self._flights.alone())

    def lookup(self, request: Request, upstream: Upstream, key: bytes = b"") -> Found:
        """``key`` is that of :func:`asked_key`, if it is known."""
        return self._cache.lookup(request.method, key or asked_key(request, upstream), request.headers, upstream.policy)

    async def _together(self, transit: Transit, upstream: Upstream, found: Miss, extra: Headers) -> None:
        """One request asks, the others wait for what it gets."""
        lead = await self._flights.join(found.key)
        if lead is None:
            again: Found = self._cache.lookup(found.method, found.key, found.request, found.policy)
            if isinstance(again, Answer):
                await self._send(transit, again, extra)
                return
            found = again
            lead = self._flights.alone()
        with lead:
            await self._fetch(transit, upstream, found, extra, lead)

    async def _fetch(self, transit: Transit, upstream: Upstream, found: Miss, extra: Headers, lead: Lead) -> None:
        stale = found if isinstance(found, Stale) else None
        try:
            asked = stale.conditional() if stale is not None else found.request
            response = await self._forwarder.ask(transit, upstream, asked)
        except GatewayError as error:
            if stale is None or not stale.on_disconnect or not (error.upstream or error.status >= 500):
                raise
            await self._send(transit, self._cache.stale_answer(stale, b"disconnected"), extra)
            return
        if stale is not None:
            if response.status == 304 and stale.asked:
                answer = self._cache.refreshed(stale, response_headers(response.headers, (), bodyless=True))
                lead.done()
                transit.detach()
                await self._send(transit, answer, extra)
                return
            if response.status in ERRORS and stale.on_error:
                transit.detach()
                await self._send(transit, self._cache.stale_answer(stale, b"error"), extra)
                return
        await self._pass(transit, response, found, extra, lead)

    async def _pass(self, transit: Transit, response: ResponseHead, found: Miss, extra: Headers, lead: Lead) -> None:
        """The origin's answer to the client, and into the cache if it may be there."""
        cache = self._cache
        headers = response_headers(response.headers, (), bodyless=response.status in (204, 304))
        cache.invalidate(found, response.status, headers)
        recorder = cache.record(found, response.status, headers)
        transit.cache = "miss"
        extra = [*extra, (b"cache-status", cache.status(found, response.status, recorder is not None))]
        if recorder is None:
            lead.release()
            await self._forwarder.relay(transit, response, extra)
            return

        def settled(kept: bool) -> None:
            if kept:
                lead.done()
            else:
                lead.release()

        with recorder:
            await self._forwarder.relay(transit, response, extra, recorder=recorder, settled=settled)

    async def _send(self, transit: Transit, answer: Answer, extra: Headers) -> None:
        """A stored response."""
        transit.cache = answer.kind
        if answer.head is not None:
            await transit.whole(answer.status, extra, answer.body, stored=answer.head)
        else:
            await transit.whole(answer.status, answer.response.headers + extra, answer.body)

    def _revalidate(self, request: Request, upstream: Upstream, found: Stale) -> None:
        """Ask in the background, unless somebody does already."""
        lead = self._flights.lead(found.key)
        if lead is None:
            return
        try:
            self._tasks.start(self._renew(request, upstream, found, lead), name="revalidation", context=found.key)
        except LimitError as error:
            lead.release()
            log.warning("a stale answer is not revalidated: %s", error)

    async def _renew(self, request: Request, upstream: Upstream, found: Stale, lead: Lead) -> None:
        transit = Transit({"method": "GET", "type": "http"}, _nothing, _nowhere)
        transit.request = background = copy_request(request)
        background.method = b"GET"
        with lead:
            try:
                upstream.breaker.enter()
            except GatewayError:
                return
            try:
                response = await self._forwarder.ask(transit, upstream, found.background())
                if response.status == 304 and found.asked:
                    self._cache.refreshed(found, response_headers(response.headers, (), bodyless=True))
                    lead.done()
                    return
                if response.status not in ERRORS:
                    await self._pass(transit, response, found, [], lead)
            except GatewayError as error:
                log.info("a stale answer could not be revalidated: %s", error)
            finally:
                upstream.breaker.leave()
                transit.detach()


def copy_request(request: Request) -> Request:
    """The same request, to be sent without a client."""
    copy = Request()
    for name in Request.__slots__:
        setattr(copy, name, getattr(request, name))
    copy.length = 0
    copy.expects = False
    return copy


def asked_key(request: Request, upstream: Upstream) -> bytes:
    """The key of what a request asks for."""
    host = request.host
    prefix = (_remembered if len(host) <= _MAX_REMEMBERED_BYTES else _prefix)(request.scheme, host, upstream.namespace)
    return prefix + request.path + request.query


def _prefix(scheme: str, host: bytes, namespace: bytes) -> bytes:
    return cache_key(scheme.encode(), host, b"", namespace)


_remembered = lru_cache(maxsize=1024)(_prefix)


async def _nothing() -> dict[str, object]:
    return {"type": "http.disconnect"}


async def _nowhere(event: object) -> None:
    return None
