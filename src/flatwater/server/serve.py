"""The server as a process: listens, handles signals, drains, leaves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import msgspec
import uvicorn

from flatwater.bounded.notify import Notifier
from flatwater.errors import FlatwaterError
from flatwater.server.app import Attachment, DriverOf, application, opened, with_token
from flatwater.server.service import Service
from flatwater.settings import Settings

log = logging.getLogger(__name__)

_CONNECTIONS_S = 3.0
_SWITCH_S = 0.001
"""How long the loop may keep the writer's thread waiting for the GIL: at Python's 5 ms a busy loop halves its rate."""
_BACKLOG = 1024


class ListenError(FlatwaterError):
    """The server cannot listen."""

    code = "listen"
    status = 503


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
    with listen(settings) as listener:
        made = made and bool(settings.server.token)
        process = Process(settings, listener, made, on_ready or _announce, on_instruments or _silent)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(process.run(driver, attachments))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def listen(settings: Settings) -> socket.socket:
    """A listening socket of the settings' host and port. Raises ListenError that says what to do."""
    server = settings.server
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise ListenError(
            str(error), where=f"server.host = {server.host!r}", hint="give an address of this machine"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A client that acknowledges nothing, or takes nothing, for so long is cut off by the kernel (tcp(7)): accepted
        # connections inherit it. Without it a stalled stream would keep its buffers for as long as it pleases.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(server.write_timeout_s * 1000))
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _listen_error(error, server.host, server.port) from None
    return listener


def _listen_error(error: OSError, host: str, port: int) -> ListenError:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        hint = "stop what listens there, or choose another with --port (0 takes a free one)"
        return ListenError(f"port {port} is taken", where=where, hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        return ListenError(f"port {port} is not allowed for this user", where=where, hint="choose one above 1023")
    return ListenError(str(error), where=where, hint="check server.host and server.port")


def _announce(address: str) -> None:
    print(f"Flatwater listens on {address}", file=sys.stderr, flush=True)  # noqa: T201


def _silent(address: str) -> None:
    pass


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it listens, and leaves signals to :class:`Process`."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self, driver: DriverOf | None, attachments: Sequence[Attachment]) -> None:
        """Open everything, answer until a signal, drain, close everything."""
        with self._signals():
            async with opened(
                self._settings, driver=driver, attachments=attachments, notifier=self._notifier
            ) as service:
                app = application(self._settings, lambda: nullcontext(service))
                server = _Uvicorn(self._config(app), self._started)
                service.tasks.start(self._wait_and_drain(service, server), name="drain")
                await server.serve(sockets=[self._listener])
        log.info("stopped")

    def _config(self, app: object) -> uvicorn.Config:
        server = self._settings.server
        return uvicorn.Config(
            app,  # type: ignore[arg-type]
            lifespan="on",
            http="httptools",
            ws="none",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=server.max_connections,
            timeout_keep_alive=max(1, round(server.keep_alive_s)),
            timeout_graceful_shutdown=max(1, round(_CONNECTIONS_S)),
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, signal.Signals(number).name)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _on_signal(self, name: str) -> None:
        if self._hurry.is_set():
            log.warning("%s once more: leaving at once; what was accepted is in the store", name)
            os._exit(1)
        if self._leave.is_set():
            log.warning("%s again: giving back running work now", name)
            self._hurry.set()
        else:
            log.info(
                "%s: draining for up to %g s; a second signal cuts that short", name, self._settings.server.drain_s
            )
            self._leave.set()

    def _started(self) -> None:
        host, port = self._listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        server = self._settings.server
        token = f"?token={server.token}" if self._token_was_made else ""
        self._on_ready(f"http://{name}:{port}/{token}")
        if not server.token:  # else the page has it already
            self._on_instruments(f"http://{name}:{port}/?token={server.diagnostic_token}#/memory")
        log.info("listening", extra={"host": host, "port": port, "pid": os.getpid()})
        self._notifier.ready(f"listening on {name}:{port}")

    async def _wait_and_drain(self, service: Service, server: uvicorn.Server) -> None:
        await self._leave.wait()
        service.draining = True
        self._notifier.stopping("draining")
        drain = service.tasks.start(_drained(service, self._settings.server.drain_s), name="drain engine")
        hurry = service.tasks.start(_event(self._hurry), name="hurry")
        try:
            await asyncio.wait([drain, hurry], return_when=asyncio.FIRST_COMPLETED)
        finally:
            drain.cancel()
            hurry.cancel()
            service.engine.events.stop()  # live streams end, or they would keep the server from leaving
            server.should_exit = True


async def _drained(service: Service, timeout_s: float) -> None:
    await service.engine.drain(timeout_s)
    if service.gateway is not None:
        await service.gateway.drain(_CONNECTIONS_S)


async def _event(event: asyncio.Event) -> None:
    await event.wait()


if __name__ == "__main__":
    from flatwater.server.log import configure
    from flatwater.settings import load

    found = load().settings
    configure(found.log)
    serve(msgspec.structs.replace(found))
