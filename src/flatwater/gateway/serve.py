"""``flatwater gateway``: the gateway on a socket, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from flatwater.bounded import Ledger
from flatwater.errors import FlatwaterError
from flatwater.gateway.admin import Admin
from flatwater.gateway.config import Config, Listen
from flatwater.gateway.document import load
from flatwater.gateway.front import Hall
from flatwater.gateway.gateway import Gateway
from flatwater.gateway.overload import Read

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0  # at the file's time of change
_CLOSE_S = 5.0
_MAX_OPERATORS = 50  # connections of the admin listener


class ListenError(FlatwaterError):
    """The gateway cannot listen."""

    code = "listen"


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
        sock = stack.enter_context(listener(config.listen))
        admin = config.admin
        desk = stack.enter_context(bound(admin.host, admin.port, "admin")) if admin.port else None
        process = Process(path, config, sock, desk, read_memory, ledger or Ledger(), on_ready or _announce)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(process.run())


def listener(listen: Listen) -> socket.socket:
    """The gateway's listening socket. Raises ListenError that says what to do."""
    sock = bound(listen.host, listen.port, "listen", listen.backlog)
    # A client that takes nothing for so long is cut off by the kernel (tcp(7)); accepted connections inherit it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(listen.write_s * 1000))
    return sock


def bound(host: str, port: int, section: str, backlog: int = 128) -> socket.socket:
    """A listening socket of a section's address. Raises ListenError."""
    where = f"{host}:{port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise ListenError(str(error), where=where, hint=f"give {section}.host an address of this machine") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        taken = error.errno == errno.EADDRINUSE
        hint = "stop what listens there, or give another port" if taken else f"check [{section}]"
        raise ListenError(os.strerror(error.errno or 0), where=where, hint=hint) from None
    return sock


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it listens, and leaves signals to :class:`Process`."""

    on_started: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()
        self._seen = _stamp(path)

    async def run(self) -> None:
        with self._signals():
            async with self._gateway as gateway:
                hall = Hall(gateway.app, self._config.listen, self._config.front, gateway.tasks, ledger=self._ledger)
                server = _Uvicorn(self._uvicorn(hall))
                server.on_started = self._started
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

    def _uvicorn(self, hall: Hall) -> uvicorn.Config:
        return uvicorn.Config(
            self._gateway.app,
            lifespan="off",
            http=hall.connection,  # type: ignore[arg-type]
            ws="none",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(_CLOSE_S)),
        )

    async def _operators(self, desk: socket.socket) -> None:
        """The admin listener; it answers until everything else has ended."""
        admin = Admin(self._gateway, token=self._config.admin.token)
        server = _Uvicorn(
            uvicorn.Config(
                admin,
                lifespan="off",
                http="httptools",
                ws="none",
                interface="asgi3",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MAX_OPERATORS,
                timeout_graceful_shutdown=1,
            )
        )
        server.on_started = _nothing
        try:
            await server.serve(sockets=[desk])
        except asyncio.CancelledError:
            server.force_exit = True
            await server.shutdown()
            raise

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGTERM: self._on_leave,
            signal.SIGINT: self._on_leave,
            signal.SIGHUP: self.reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _on_leave(self) -> None:
        if self._hurry.is_set():
            log.warning("a third signal: leaving at once")
            os._exit(1)
        if self._leave.is_set():
            log.warning("a second signal: ending requests under way")
            self._hurry.set()
        else:
            log.info("draining for up to %g s; a second signal cuts that short", self._config.listen.drain_s)
            self._leave.set()

    def _started(self) -> None:
        host, port = self._socket.getsockname()[:2]
        self._on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        log.info("listening on %s:%s, pid %s", host, port, os.getpid())

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            stamp = _stamp(self._path)
            if stamp != self._seen and stamp is not None:
                self.reload()

    async def _wait_and_drain(self, server: uvicorn.Server, hall: Hall) -> None:
        """New connections are refused at once, requests under way are finished, then everything closes."""
        await self._leave.wait()
        hall.draining = True
        for listening in server.servers:
            listening.close()
        hall.close_idle()
        background = self._gateway.background
        drain = background.start(self._drained(hall), name="requests under way")
        hurry = background.start(_event(self._hurry), name="hurry")
        try:
            await asyncio.wait([drain, hurry], return_when=asyncio.FIRST_COMPLETED)
        finally:
            drain.cancel()
            hurry.cancel()
            self._gateway.app.abort()
            server.should_exit = True
            server.force_exit = self._hurry.is_set()

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


def _nothing() -> None:
    pass


async def _event(event: asyncio.Event) -> None:
    await event.wait()


def _announce(address: str) -> None:
    print(f"flatwater gateway listens on {address}", file=sys.stderr, flush=True)  # noqa: T201


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
