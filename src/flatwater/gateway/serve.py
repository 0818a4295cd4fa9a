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
from flatwater.errors import FlatwaterError
from flatwater.gateway.admin import Admin
from flatwater.gateway.config import Config
from flatwater.gateway.document import load
from flatwater.gateway.front import Hall
from flatwater.gateway.gateway import Gateway
from flatwater.gateway.overload import Read
from flatwater.listener.address import authority, bound
from flatwater.listener.departure import Departure
from flatwater.listener.server import Server, new_loop

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0  # at the file's time of change
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

    SIGHUP, or a change of the file, loads it again; one that is wrong is refused and logged. Raises FlatwaterError when
    the gateway cannot start.
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
        self._seen = _stamp(path)

    async def run(self) -> None:
        with self._departure.signals({signal.SIGHUP: self.reload}):
            async with self._gateway as gateway:
                hall = Hall(gateway.app, self._config.listen, self._config.front, gateway.tasks, ledger=self._ledger)
                server = Server(
                    gateway.app,
                    on_started=self._started,
                    lifespan="off",
                    http=hall.connection,
                    date_header=False,
                    timeout_graceful_shutdown=max(1, round(_CLOSE_S)),
                )
                gateway.background.start(self._wait_and_drain(server, hall), name="drain")
                gateway.background.start(self._watch_file(), name="watch of the configuration")
                async with hall.sweeper:
                    if self._desk is not None:
                        gateway.background.start(self._operators(self._desk), name="admin listener")
                    await server.serve(sockets=[self._socket])
        log.info("stopped")

    def reload(self) -> bool:
        """Load the file again; False when it is refused."""
        self._seen = _stamp(self._path)
        try:
            restart = self._gateway.reload(load(self._path))
        except FlatwaterError as error:
            log.error("the configuration is refused, the one in force stays: %s", error)
            return False
        log.info("configuration loaded from %s", self._path)
        if restart:
            log.warning("changes of %s take a restart", ", ".join(f"[{section}]" for section in restart))
        return True

    async def _operators(self, desk: socket.socket) -> None:
        """The admin listener; it answers until everything else has ended."""
        admin = Admin(self._gateway, token=self._config.admin.token)
        server = Server(
            admin, lifespan="off", http="httptools", limit_concurrency=_MAX_OPERATORS, timeout_graceful_shutdown=1
        )
        try:
            await server.serve(sockets=[desk])
        except asyncio.CancelledError:
            server.force_exit = True
            await server.shutdown()
            raise

    def _started(self) -> None:
        where = authority(self._socket)
        self._on_ready(f"http://{where}")
        log.info("listening on %s, pid %s", where, os.getpid())

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            stamp = _stamp(self._path)
            if stamp != self._seen and stamp is not None:
                self.reload()

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


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file, whether it is written or replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _announce(address: str) -> None:
    print(f"flatwater gateway listens on {address}", file=sys.stderr, flush=True)  # noqa: T201
