"""The gateway inside the server: its services under ``/gateway/{service}/``, beside the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace

from flatwater.bounded import Ledger
from flatwater.gateway import Config, Gateway, load
from flatwater.memory import control_group
from flatwater.server.reply import Send
from flatwater.server.request import Receive, Scope

PREFIX = "/gateway/"


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

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            gateway: Gateway | None = scope["state"]["service"].gateway
            if gateway is not None:
                await gateway.app(scope, receive, send)
                return
        await self._app(scope, receive, send)
