"""uvicorn as Flatwater uses it: on a socket that is open already, without its signals, logs and headers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    """Carries ``app`` on one socket; calls ``on_started`` when it listens. Signals are left to Departure.

    ``options`` are those of :class:`uvicorn.Config` that differ between users.
    """

    def __init__(self, app: Any, *, on_started: Callable[[], None] | None = None, **options: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                ws="none",
                interface="asgi3",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                **options,
            )
        )
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_started is not None:
            self._on_started()

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
