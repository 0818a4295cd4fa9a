"""The gateway inside the server: its services under ``/gateway/{service}/``, beside the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from time import time
from typing import Any

from msgspec.structs import replace

from flatwater.bounded import Ledger
from flatwater.gateway import Config, Gateway, load
from flatwater.gateway.config import Front
from flatwater.gateway.cycle import Cycle
from flatwater.gateway.error import RefusedError
from flatwater.gateway.head import Head, Heads
from flatwater.gateway.message import Headers
from flatwater.gateway.proxy import Known, Write
from flatwater.gateway.request import Inspector
from flatwater.memory import control_group
from flatwater.server.problem import failure
from flatwater.server.reply import Send, fail
from flatwater.server.request import Receive, Scope
from flatwater.server.service import Service

PREFIX = "/gateway/"
_PREFIX = PREFIX.encode()

App = Callable[[Scope, Receive, Send], Awaitable[None]]


def opened(path: str, ledger: Ledger) -> Gateway:
    """The gateway of a file, to be entered. Raises ConfigError with every mistake and its line."""
    return Gateway(mounted(load(Path(path))), ledger=ledger, read_memory=control_group.own_use)


def mounted(config: Config) -> Config:
    """The same services, each under its name, whatever hosts and paths they have when the gateway stands alone."""
    services = {
        name: replace(service, path=f"{PREFIX}{name}", hosts=(), strip_prefix=True)
        for name, service in config.services.items()
    }
    return replace(config, services=services)


class Gate:
    """Sends requests below the prefix to the gateway, before the server's own checks: services know their callers,
    the server's token is not theirs, and their answers keep their own headers."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            gateway: Gateway | None = scope["state"]["service"].gateway
            if gateway is not None:
                await gateway.app(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Reception:
    """What the server's front hands requests to (:class:`flatwater.gateway.front.App`): those below the prefix go the
    gateway's own ways; the others are checked by the same rules, within ``front``, before ``app`` gets them with the
    state that it expects, and their answers get a Date."""

    def __init__(self, app: App, service: Service, front: Front) -> None:
        self._app = app
        self._check = Inspector(front).check
        self._state = {"service": service}
        self._proxy = service.gateway.app if service.gateway is not None else None
        self.heads = self._proxy.heads if self._proxy is not None else _no_heads(service.ledger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._proxy is not None and scope["path"].startswith(PREFIX):
            await self._proxy(scope, receive, send)
        else:
            await self._own(scope, receive, _dated(send))

    def recognise(
        self, method: str, version: str, path: bytes, query: bytes, fields: Headers, scheme: str, keep_alive: bool
    ) -> Head | None:
        if self._proxy is None or not path.startswith(_PREFIX):
            return None
        return self._proxy.recognise(method, version, path, query, fields, scheme, keep_alive)

    def glance(self, head: Head, fields: Headers, id: bytes, client: str, write: Write) -> bool:
        assert self._proxy is not None
        return self._proxy.glance(head, fields, id, client, write)

    def quick(self, head: Head, client: str, write: Write) -> Known | None:
        assert self._proxy is not None  # whose head it is
        return self._proxy.quick(head, client, write)

    def express(self, outlet: Cycle, head: Head, client: str) -> bool:
        assert self._proxy is not None
        return self._proxy.express(outlet, head, client)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:  # with a method that passes: which ones there are is the app's to say
            self._check("GET", scope["http_version"], scope["raw_path"], scope["query_string"], scope["headers"])
        except RefusedError as error:  # another server on the way may read it otherwise: nothing after it is believed
            failed = failure(error)
            await fail(send, replace(failed, headers={**failed.headers, "connection": "close"}))
            return
        scope["state"] = self._state.copy()
        await self._app(scope, receive, send)


def _no_heads(ledger: Ledger) -> Heads:
    return Heads("server heads", max_entries=0, max_bytes=0, max_head_bytes=0, ledger=ledger)


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def _dated(send: Send) -> Send:
    async def dated(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"date", _date(int(time())))]
        await send(message)

    return dated
