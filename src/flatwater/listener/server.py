"""uvicorn as Flatwater uses it: on a socket that is open already, without its signals, logs and headers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from flatwater.listener.certificate import Certificate

_TLS_CLOSE_S = 2.0  # how long a client may take to agree to the end of a TLS connection


class Server(uvicorn.Server):
    """Carries ``app`` on sockets; calls ``on_started`` when it listens. Signals are left to Departure.

    With a ``certificate`` it speaks TLS, and cuts clients off that take longer than ``handshake_s`` for the handshake.
    ``options`` are those of :class:`uvicorn.Config` that differ between users.
    """

    def __init__(
        self,
        app: Any,
        *,
        certificate: Certificate | None = None,
        handshake_s: float = 10.0,
        on_started: Callable[[], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                **options,
            )
        )
        self._on_started = on_started
        self._tls: dict[str, Any] = {}
        if certificate is not None:
            self._tls = {
                "ssl": certificate.context,
                "ssl_handshake_timeout": handshake_s,
                "ssl_shutdown_timeout": _TLS_CLOSE_S,
            }

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        backlog = self.config.backlog
        self.servers = [
            await loop.create_server(self._protocol, sock=sock, backlog=backlog, **self._tls) for sock in sockets or ()
        ]
        self.started = True
        if self._on_started is not None:
            self._on_started()

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(config=self.config, server_state=self.server_state, app_state={})
        return protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop, uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
