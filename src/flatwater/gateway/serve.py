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
from typing import Any, Protocol

from flatwater.bounded import Ledger
from flatwater.bounded.notify import Notifier
from flatwater.gateway.admin import Admin
from flatwater.gateway.config import Config
from flatwater.gateway.front import Hall
from flatwater.gateway.gateway import Gateway
from flatwater.gateway.overload import Read
from flatwater.gateway.reload import Reloaded, reload
from flatwater.listener.address import bound, url
from flatwater.listener.certificate import Certificate
from flatwater.listener.departure import Departure
from flatwater.listener.server import Server, new_loop
from flatwater.listener.watch import Watch

log = logging.getLogger(__name__)

_CLOSE_S = 5.0
_MAX_OPERATORS = 50  # connections of the admin listener
_ALIVE_SHARE = 3  # how many times the watchdog of systemd hears in the time that it allows


class Alarm(Protocol):
    """Rules on the process's figures: :class:`flatwater.memory.alarm.Alarm`. Entered and left with the gateway."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *given: Any) -> None: ...
    async def run(self) -> None: ...
    def active(self) -> list[str]: ...
    @property
    def raised(self) -> int: ...


AlarmOf = Callable[[Gateway, Ledger], Alarm]
"""Makes the alarm of a gateway. Raises FlatwaterError for rules that are not understood."""


def serve(
    path: Path,
    config: Config,
    *,
    read_memory: Read | None = None,
    alarm: AlarmOf | None = None,
    ledger: Ledger | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Answer until SIGTERM or SIGINT; then drain for up to ``listen.drain_s``, which a second signal cuts short.

    SIGHUP, or a change of the file, loads it again; one that is wrong is refused and logged. So it goes with the files
    of its certificate. systemd is told of all that, and that the loop is alive, where it started the process. ``alarm``
    makes what watches the process. Raises FlatwaterError when the gateway cannot start.
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
        process = Process(path, config, sock, desk, read_memory, alarm, ledger or Ledger(), on_ready or _announce)
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
        alarm: AlarmOf | None,
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
        self._alarm = alarm(self._gateway, ledger) if alarm is not None else None
        self._notifier = Notifier()
        self._address = ""
        self._reloaded = Reloaded()
        self._leaving = False
        self._departure = Departure(config.listen.drain_s)
        tls = config.listen.tls
        self._certificate = Certificate.given(tls.certificate, tls.key, tls.min_version)
        self._watches = [Watch([path], self._load)]
        if self._certificate is not None:
            self._watches.append(self._certificate.watch())

    async def run(self) -> None:
        with self._departure.signals({signal.SIGHUP: self._reload}):
            async with self._alarm or contextlib.nullcontext(), self._gateway as gateway:
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
                if self._notifier.watchdog_s is not None:
                    gateway.background.start(self._stay_alive(self._notifier.watchdog_s), name="watchdog")
                if self._alarm is not None:
                    gateway.background.start(self._alarm.run(), name="alarm")
                async with hall.sweeper:
                    if self._desk is not None:
                        gateway.background.start(self._operators(self._desk), name="admin listener")
                    await server.serve(sockets=[self._socket])
        log.info("stopped")

    def _load(self) -> None:
        if not self._leaving:
            self._notifier.reloading("loading the configuration")
        self._reloaded = reload(self._gateway, self._path)
        if not self._leaving:
            problem = " ".join(self._reloaded.problem.split())  # a status is one line
            refused = f"; the configuration is refused: {problem}" if problem else ""
            self._notifier.ready(f"listening on {self._address}{refused}")

    def _reload(self) -> Reloaded:
        """Read all files again; what became of the configuration."""
        for watch in self._watches:
            watch.act()
        return self._reloaded

    async def _stay_alive(self, allowed_s: float) -> None:
        """Tell the watchdog, from the loop that answers."""
        while True:
            self._notifier.alive()
            await asyncio.sleep(allowed_s / _ALIVE_SHARE)

    async def _operators(self, desk: socket.socket) -> None:
        """The admin listener; it answers until everything else has ended."""
        admin = Admin(self._gateway, token=self._config.admin.token, reload=self._reload, alarm=self._alarm)
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
        self._address = address = url(self._socket, tls=self._certificate is not None)
        self._on_ready(address)
        log.info("listening on %s, pid %s", address, os.getpid())
        self._notifier.ready(f"listening on {address}")

    async def _wait_and_drain(self, server: Server, hall: Hall) -> None:
        """New connections are refused at once, requests under way are finished, then everything closes."""
        await self._departure.asked()
        self._leaving = True
        self._notifier.stopping("draining")
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
