"""``flatwater gateway``: the gateway on a socket, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from flatwater.bounded import Ledger
from flatwater.gateway.admin import Admin
from flatwater.gateway.config import Config
from flatwater.gateway.front import Hall
from flatwater.gateway.gateway import Gateway
from flatwater.gateway.overload import Read
from flatwater.gateway.reload import reload
from flatwater.listener.address import bound, url
from flatwater.listener.certificate import Certificate
from flatwater.listener.departure import Departure
from flatwater.listener.server import Server, new_loop
from flatwater.listener.watch import Watch

log = logging.getLogger(__name__)

_CLOSE_S = 5.0
_MAX_OPERATORS = 50  # connections of the admin listener


def serve(
    path: Path,
    config: Config,
    *,
    read_memory: Read | None = None,
    ledger: Ledger | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Answer until SIGTERM or SIGINT; then drain for up to ``listen.drain_s``, which a second signal cuts short.

    SIGHUP, or a change of the file, loads it again; one that is wrong is refused and logged. So it goes with the files
    of its certificate. Raises FlatwaterError when the gateway cannot start.
    """
    with contextlib.ExitStack() as stack:
        listen, admin = config.listen, config.admin
        sock = stack.enter_context(
            bound(
                listen.host,
                listen.port,
                section="listen",
                flag="--port",
                backlog=listen.backlog,
                write_s=listen.write_s,
            )
        )
        desk = stack.enter_context(bound(admin.host, admin.port, section="admin")) if admin.port else None
        process = Process(path, config, sock, desk, read_memory, ledger or Ledger(), on_ready or _announce)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(process.run())


class Process:
    """One run of the gateway, from the open socket to the end."""

    def __init__(
        self,
        path: Path,
        config: Config,
        sock: socket.socket,
        desk: socket.socket | None,
        read_memory: Read | None,
        ledger: Ledger,
        on_ready: Callable[[str], None],
    ) -> None:
        self._path = path
        self._config = config
        self._socket = sock
        self._desk = desk
        self._ledger = ledger
        self._on_ready = on_ready
        self._gateway = Gateway(config, ledger=ledger, read_memory=read_memory)
        self._departure = Departure(config.listen.drain_s)
        tls = config.listen.tls
        self._certificate = Certificate.given(tls.certificate, tls.key, tls.min_version)
        self._watches = [Watch([path], self._load)]
        if self._certificate is not None:
            self._watches.append(self._certificate.watch())

    async def run(self) -> None:
        with self._departure.signals({signal.SIGHUP: self._reload}):
            async with self._gateway as gateway:
                hall = Hall(gateway.app, self._config.listen, self._config.front, gateway.tasks, ledger=self._ledger)
                server = Server(
                    gateway.app,
                    certificate=self._certificate,
                    handshake_s=self._config.listen.head_s,
                    on_started=self._started,
                    http=hall.connection,
                    backlog=self._config.listen.backlog,
                    date_header=False,
                    timeout_graceful_shutdown=max(1, round(_CLOSE_S)),
                )
                gateway.background.start(self._wait_and_drain(server, hall), name="drain")
                for watch in self._watches:
                    gateway.background.start(watch.run(), name="watch of files")
                async with hall.sweeper:
                    if self._desk is not None:
                        gateway.background.start(self._operators(self._desk), name="admin listener")
                    await server.serve(sockets=[self._socket])
        log.info("stopped")

    def _load(self) -> None:
        reload(self._gateway, self._path)

    def _reload(self) -> None:
        for watch in self._watches:
            watch.act()

    async def _operators(self, desk: socket.socket) -> None:
        """The admin listener; it answers until everything else has ended."""
        admin = Admin(self._gateway, token=self._config.admin.token)
        server = Server(
            admin,
            certificate=self._certificate if self._config.admin.tls else None,
            http="httptools",
            limit_concurrency=_MAX_OPERATORS,
            timeout_graceful_shutdown=1,
        )
        try:
            await server.serve(sockets=[desk])
        except asyncio.CancelledError:
            server.force_exit = True
            await server.shutdown()
            raise

    def _started(self) -> None:
        address = url(self._socket, tls=self._certificate is not None)
        self._on_ready(address)
        log.info("listening on %s, pid %s", address, os.getpid())

    async def _wait_and_drain(self, server: Server, hall: Hall) -> None:
        """New connections are refused at once, requests under way are finished, then everything closes."""
        await self._departure.asked()
        hall.draining = True
        for listening in server.servers:
            listening.close()
        hall.close_idle()
        try:
            await self._departure.drain(self._drained(hall), self._gateway.background)
        finally:
            self._gateway.app.abort()
            server.should_exit = True
            server.force_exit = self._departure.hurried

    async def _drained(self, hall: Hall) -> None:
        app = self._gateway.app
        app.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.listen.drain_s):
                while len(app) or hall.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


def _announce(address: str) -> None:
    print(f"flatwater gateway listens on {address}", file=sys.stderr, flush=True)  # noqa: T201
