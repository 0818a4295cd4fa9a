"""The server as a process: listens, handles signals, drains, leaves."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from flatwater.bounded import TaskGroup
from flatwater.bounded.notify import Notifier
from flatwater.gateway.config import Front, Listen
from flatwater.gateway.front import Hall
from flatwater.gateway.reload import reload
from flatwater.listener.address import bound, url
from flatwater.listener.certificate import Certificate
from flatwater.listener.departure import Departure
from flatwater.listener.server import Server, new_loop
from flatwater.listener.watch import Watch
from flatwater.server.app import Attachment, DriverOf, application, opened, with_token
from flatwater.server.auth import MAX_TARGET_BYTES
from flatwater.server.gate import Reception, mounted
from flatwater.server.service import Service
from flatwater.settings import Settings

log = logging.getLogger(__name__)

_CONNECTIONS_S = 3.0
_SWITCH_S = 0.001
"""How long the loop may keep the writer's thread waiting for the GIL: at Python's 5 ms a busy loop halves its rate."""
_BACKLOG = 1024


def serve(
    settings: Settings,
    *,
    driver: DriverOf | None = None,
    attachments: Sequence[Attachment] = (),
    on_ready: Callable[[str], None] | None = None,
    on_instruments: Callable[[str], None] | None = None,
) -> None:
    """Run the server until a signal ends it. ``on_ready`` gets the page's address (with a token made for this start),
    ``on_instruments`` that of its memory instruments, which need a token on loopback too.

    The first SIGTERM or SIGINT drains: the server is unready but answers, takes no new runs, lets blocks end for
    ``server.drain_s``, and gives the rest back to the store. The second one cuts that short, the third one ends the
    process at once; nothing that was accepted is lost either way. Raises FlatwaterError when it cannot start.
    """
    sys.setswitchinterval(_SWITCH_S)
    made = not settings.server.token
    settings = with_token(settings)
    server = settings.server
    with bound(
        server.host, server.port, section="server", flag="--port", backlog=_BACKLOG, write_s=server.write_timeout_s
    ) as listener:
        made = made and bool(server.token)
        process = Process(settings, listener, made, on_ready or _announce, on_instruments or _silent)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(process.run(driver, attachments))


def _announce(address: str) -> None:
    print(f"Flatwater listens on {address}", file=sys.stderr, flush=True)  # noqa: T201


def _silent(address: str) -> None:
    pass


class Process:
    """One run of the server, from the open socket to the end."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        token_was_made: bool,
        on_ready: Callable[[str], None],
        on_instruments: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._token_was_made = token_was_made
        self._on_ready = on_ready
        self._on_instruments = on_instruments
        self._notifier = Notifier()
        self._departure = Departure(settings.server.drain_s)
        self._watches: list[Watch] = []
        server = settings.server
        self._certificate = Certificate.given(server.tls_certificate, server.tls_key, server.tls_min_version)

    async def run(self, driver: DriverOf | None, attachments: Sequence[Attachment]) -> None:
        """Open everything, answer until a signal, drain, close everything."""
        max_tasks = self._settings.server.max_connections
        with self._departure.signals({signal.SIGHUP: self._reload}):
            async with (
                opened(self._settings, driver=driver, attachments=attachments, notifier=self._notifier) as service,
                TaskGroup("server requests", max_tasks=max_tasks, ledger=service.ledger) as requests,
            ):
                hall = self._hall(service, requests)
                server = Server(
                    hall.app,
                    certificate=self._certificate,
                    handshake_s=self._settings.server.head_timeout_s,
                    on_started=self._started,
                    http=hall.connection,
                    backlog=_BACKLOG,
                    date_header=False,
                    timeout_graceful_shutdown=max(1, round(_CONNECTIONS_S)),
                )
                service.tasks.start(self._wait_and_drain(service, server), name="drain")
                self._watches = self._watched(service)
                for watch in self._watches:
                    service.tasks.start(watch.run(), name="watch of files")
                async with hall.sweeper:
                    await server.serve(sockets=[self._listener])
        log.info("stopped")

    def _hall(self, service: Service, requests: TaskGroup) -> Hall:
        """The front of API and gateway; heads may be as large as the gateway's file says."""
        server = self._settings.server
        listen = Listen(
            max_connections=server.max_connections, keep_alive_s=server.keep_alive_s, head_s=server.head_timeout_s
        )
        front = service.gateway.config.front if service.gateway is not None else Front()
        front = replace(front, max_target_bytes=max(front.max_target_bytes, MAX_TARGET_BYTES + len("?")))
        app = Reception(application(self._settings), service, front)
        return Hall(app, listen, front, requests, ledger=service.ledger, name="server clients")

    def _watched(self, service: Service) -> list[Watch]:
        """What is read again when it changes: the certificate and the gateway's file."""
        found = [self._certificate.watch()] if self._certificate is not None else []
        if (gateway := service.gateway) is not None:
            path = Path(self._settings.gateway.config)
            found.append(Watch([path], lambda: reload(gateway, path, mounted)))
        return found

    def _reload(self) -> None:
        for watch in self._watches:
            watch.act()

    def _started(self) -> None:
        address = url(self._listener, tls=self._certificate is not None)
        server = self._settings.server
        token = f"?token={server.token}" if self._token_was_made else ""
        self._on_ready(f"{address}/{token}")
        if not server.token:  # else the page has it already
            self._on_instruments(f"{address}/?token={server.diagnostic_token}#/memory")
        host, port = self._listener.getsockname()[:2]
        log.info("listening", extra={"host": host, "port": port, "pid": os.getpid()})
        self._notifier.ready(f"listening on {address}")

    async def _wait_and_drain(self, service: Service, server: Server) -> None:
        await self._departure.asked()
        service.draining = True
        self._notifier.stopping("draining")
        try:
            await self._departure.drain(_drained(service, self._settings.server.drain_s), service.tasks)
        finally:
            service.engine.events.stop()  # live streams end, or they would keep the server from leaving
            server.should_exit = True


async def _drained(service: Service, timeout_s: float) -> None:
    await service.engine.drain(timeout_s)
    if service.gateway is not None:
        await service.gateway.drain(_CONNECTIONS_S)


if __name__ == "__main__":
    from flatwater.server.log import configure
    from flatwater.settings import load

    found = load().settings
    configure(found.log)
    serve(msgspec.structs.replace(found))
