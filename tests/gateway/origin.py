"""Upstreams that speak, or lie, byte by byte; a gateway on a socket; a client that sends what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace

from flatwater.bounded import Ledger
from flatwater.gateway import Config, Gateway, parse
from flatwater.gateway.front import Hall

Handler = Callable[["Origin", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Origin:
    """A server whose connections are handled by a coroutine; ``heads`` are those that were read by ``head``."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self.writers: set[asyncio.StreamWriter] = set()
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.accepted = 0
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.writers.add(writer)
        try:
            await self._handler(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError):
                await writer.wait_closed()
            self.writers.discard(writer)
            self._tasks.discard(task)

    async def head(self, reader: asyncio.StreamReader) -> bytes:
        found = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(found)
        return found

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """The head; the body goes to ``bodies``."""
        head = await self.head(reader)
        self.bodies.append(await body(reader, head))
        return head

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.sleep(0.005)


async def body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body that a head announces; chunks are joined, trailers dropped."""
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        found = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            found += await reader.readexactly(size)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return found
    if b"content-length: " in lower:
        return await reader.readexactly(int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]))
    return b""


def answering(*parts: bytes, then_close: bool = False) -> Handler:
    """Answers every request with the same bytes, part by part."""

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await origin.request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if then_close:
                return

    return handle


@contextlib.asynccontextmanager
async def origin(handler: Handler | bytes, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    found = Origin(answering(handler) if isinstance(handler, bytes) else handler)
    server = await asyncio.start_server(found, "127.0.0.1", 0, ssl=tls, limit=2**20)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await found.stop()
        await server.wait_closed()


class Gate:
    """A gateway that listens."""

    def __init__(self, gateway: Gateway, hall: Hall, port: int) -> None:
        self.gateway = gateway
        self.hall = hall
        self.port = port

    async def ask(self, data: bytes, *, until_close: bool = False) -> Reply:
        """Send bytes, read one answer (or all until the end)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        try:
            writer.write(data)
            async with asyncio.timeout(60):
                if until_close:
                    return Reply(await reader.read(-1))
                return await reply(reader, head_only=data.startswith(b"HEAD"))
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def get(self, path: str = "/api/", extra: bytes = b"") -> Reply:
        return await self.ask(b"GET %b HTTP/1.1\r\nhost: gate\r\n%b\r\n" % (path.encode(), extra))

    async def at_rest(self) -> None:
        """Wait until nothing is under way and no client is connected."""
        async with asyncio.timeout(60):
            while self.busy():
                await asyncio.sleep(0.01)

    def busy(self) -> bool:
        found = self.gateway.statistics()
        pools = [endpoint.pool for service in found.services for endpoint in service.endpoints]
        return bool(
            found.active
            or found.tasks.size > (self.gateway.overload is not None)
            or self.hall.connections
            or any(pool.busy or pool.pending for pool in pools)
            or any(service.breaker.requests or service.breaker.retries for service in found.services)
        )


class Reply:
    """An answer, parsed as far as tests look at it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.status = int(lines[0].split(b" ")[1]) if lines[0] else 0
        self.headers = [(name.lower(), value) for line in lines[1:] for name, _, value in [line.partition(b": ")]]

    def __getitem__(self, name: str) -> str:
        return next((value.decode() for key, value in self.headers if key == name.encode()), "")


async def reply(reader: asyncio.StreamReader, *, head_only: bool = False) -> Reply:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return Reply(error.partial)
    while head.startswith(b"HTTP/1.1 1") and not head.startswith(b"HTTP/1.1 101"):
        head = await reader.readuntil(b"\r\n\r\n")
    found = Reply(head)
    if head_only or found.status in (101, 204, 304):
        return found
    if b"content-length: " not in head.lower() and b"chunked" not in head.lower():
        found.body = await reader.read(-1)
    else:
        found.body = await body(reader, head)
    return found


LATE = "drain_lag_s = 60\nrefuse_lag_s = 60\n"
"""For [overload]: a busy machine, with clients and upstreams in the same loop, does not make the gateway overloaded."""


def config(port: int, more: str = "", *, scheme: str = "http", host: str = "127.0.0.1") -> Config:
    """One service, ``api``; ``more`` continues its table."""
    return parse(f'[overload]\n{LATE}[services.api]\nendpoints = ["{scheme}://{host}:{port}"]\n{more}\n')


@contextlib.asynccontextmanager
async def gate(
    config: Config, ledger: Ledger, *, express: bool = True, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Gate]:
    """A gateway behind its own front, without the process around it; without ``express`` each request takes a task."""
    async with Gateway(config, ledger=ledger, clock=clock) as gateway:
        if not express:
            gateway.app.express = lambda *given: False  # type: ignore[method-assign]
        hall = Hall(gateway.app, config.listen, config.front, gateway.tasks, ledger=ledger)
        state = SimpleNamespace(connections=set(), total_requests=0)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: hall.connection(server_state=state), "127.0.0.1", 0)
        async with hall.sweeper:
            try:
                yield Gate(gateway, hall, server.sockets[0].getsockname()[1])
            finally:
                server.close()
                for connection in list(hall.connections):
                    connection.abort()
                while hall.connections:
                    await asyncio.sleep(0.005)
                await server.wait_closed()
