"""Requests to answers: the ASGI application of one path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from flatwater.server.problem import Failure, RequestError, failure
from flatwater.server.reply import Send, answer, fail
from flatwater.server.request import Receive, Scope, arguments
from flatwater.server.route import Reply, Route
from flatwater.server.service import Service


class Endpoint:
    """All methods of one path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {route.method: route for route in routes}
        get = self._routes.get("GET")
        self._head = get is not None and not get.changing and not get.raw
        self._allow = ", ".join(sorted({*self._routes, *(["HEAD"] if self._head else [])}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service: Service = scope["state"]["service"]
        head = scope["method"] == "HEAD"
        route = self._routes.get("GET" if head else scope["method"])
        if route is None or (head and not self._head):
            await fail(send, _not_allowed(scope["method"], self._allow))
            return
        try:
            given = await self._arguments(route, service, scope, receive)
            if route.raw:
                await route.handler(service, receive, send, **given)
                return
            reply = await self._reply(route, service, given)
        except Exception as error:
            await fail(send, failure(error), enveloped=route.enveloped)
            return
        body = reply.value if isinstance(reply.value, bytes) else msgspec.json.encode(reply.value)
        await answer(send, reply.status or route.status, body, {"content-type": route.media, **reply.headers})

    async def _arguments(self, route: Route, service: Service, scope: Scope, receive: Receive) -> dict[str, Any]:
        settings = service.settings.server
        return await arguments(route, scope, receive, getattr(settings, route.limit), settings.body_timeout_s)

    async def _reply(self, route: Route, service: Service, given: dict[str, Any]) -> Reply[Any]:
        limit_s = service.settings.server.request_timeout_s
        deadline = asyncio.timeout(limit_s)
        try:
            async with deadline:
                result = await route.handler(service, **given)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise RequestError(504, "timeout", f"this took longer than {limit_s:g} s") from None
        return result if isinstance(result, Reply) else Reply(result)


def _not_allowed(method: str, allow: str) -> Failure:
    detail = f"{method} is not possible here"
    return failure(RequestError(405, "method", detail, hint=f"possible: {allow}", headers={"Allow": allow}))
