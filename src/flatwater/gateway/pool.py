"""The connections to one endpoint: kept alive, counted, waited for in order, and their times watched."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from flatwater.bounded import Ledger, check_bound
from flatwater.bounded.ledger import Usage
from flatwater.errors import SettingError
from flatwater.gateway.connection import Connection
from flatwater.gateway.error import (
    ConnectError,
    ConnectTimeoutError,
    GatewayError,
    PendingFullError,
    PendingTimeoutError,
    TlsError,
)
from flatwater.gateway.exchange import Exchange


class Origin(msgspec.Struct, frozen=True):
    """Where an endpoint is. ``authority`` is what its Host field says when the gateway rewrites it."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.scheme == "https" else 80) else f"{name}:{self.port}"

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}:{self.port}"


def origin(url: str) -> Origin:
    """The origin that a URL names. Raises SettingError for anything but ``http(s)://host[:port]``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingError(f"{url!r}: {error}", hint="write it as http://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError(f"{url!r} is not an http or https URL", hint="write it as http://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise SettingError(f"{url!r} has more than scheme, host and port", hint="write it as http://host:port")
    return Origin(parts.scheme, parts.hostname, (443 if parts.scheme == "https" else 80) if port is None else port)


class PoolStatistics(Usage, frozen=True, kw_only=True):
    """``size`` connections are open (or being opened), of ``bound``: ``idle`` ones and ``busy`` ones; ``pending``
    requests wait for one; ``bytes`` of answers wait for slow clients. The rest counts since the start."""

    idle: int
    busy: int
    pending: int
    opened: int
    failed: int
    reused: int
    refused: int
    cut: int


class Waiter(Protocol):
    """Who waits for a connection: a future, or what does without one (flatwater.gateway.client)."""

    def done(self) -> bool: ...
    def set_result(self, connection: Connection | None, /) -> None:
        """Here it is; None: open one, its place is taken."""

    def set_exception(self, error: GatewayError, /) -> None: ...


class Pool:
    """``acquire`` gives an idle connection, else a new one up to ``max_connections``, else it waits in order of
    arrival for up to ``pending_s``; more than ``max_pending`` waiters are refused. Idle connections close after
    ``keep_s``. ``sweep`` must be called every tick (see flatwater.gateway.sweeper)."""

    kind = "connection pool"

    def __init__(
        self,
        where: Origin,
        *,
        ledger: Ledger,
        max_connections: int = 100,
        max_pending: int = 1000,
        pending_s: float = 5.0,
        keep_s: float = 30.0,
        connect_s: float = 5.0,
        max_head_bytes: int = 64 * 1024,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        for setting, value in (("max_connections", max_connections), ("pending_s", pending_s), ("keep_s", keep_s)):
            check_bound(setting, value, where=str(where))
        self.name = str(where)
        self.origin = where
        self.max_head_bytes = max_head_bytes
        self._tls = tls
        self._server_name = server_name or where.host
        self._max_connections = max_connections
        self._max_pending = max_pending
        self._pending_s = pending_s
        self._keep_s = keep_s
        self._connect_s = connect_s
        self._idle: list[Connection] = []  # last in, first out: what is left over grows old at the front
        self._open: set[Connection] = set()
        self._busy: set[Exchange] = set()
        self._pending: deque[tuple[Waiter, float]] = deque()
        self._count = 0  # connections that are open, being opened, or promised to a waiter
        self._closed = False
        self._now = 0.0
        self._opened = self._failed = self._reused = self._refused = self._cut = 0
        ledger.register(self)

    def take(self) -> Connection | None:
        """An idle connection, when there is one: no waiting."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._reused += 1
                return connection
        return None

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection that nobody else uses; ``fresh``: one that was never used.

        Raises PendingFullError, PendingTimeoutError, ConnectError, ConnectTimeoutError, TlsError.
        """
        while True:
            connection = None if fresh else self.take()
            if connection is not None:
                return connection
            if self._count < self._max_connections:
                self._count += 1
                return await self._connect()
            if fresh:
                self._drop_idle(1)
            connection = await self._wait()
            if connection is None:
                return await self._connect()
            if fresh:
                connection.cut()
            elif not connection.closed:
                return connection

    def queue(self, waiter: Waiter) -> bool:
        """Let ``waiter`` wait its turn as ``acquire`` does; False when that would open a connection, or refuse."""
        if self._closed or self._count < self._max_connections or len(self._pending) >= self._max_pending:
            return False
        self._pending.append((waiter, asyncio.get_running_loop().time()))
        return True

    def unqueue(self, waiter: Waiter) -> None:
        """It waits no more."""
        entry = next((entry for entry in self._pending if entry[0] is waiter), None)
        if entry is not None:
            self._pending.remove(entry)

    def give_up_place(self) -> None:
        """A waiter that may open a connection leaves that to the next who asks."""
        self._count -= 1

    def begun(self, exchange: Exchange) -> None:
        self._busy.add(exchange)

    def finished(self, connection: Connection, exchange: Exchange) -> None:
        """An exchange has been released; the connection is reusable unless it is closed."""
        self._busy.discard(exchange)
        if connection.closed:
            self._cut += 1
        else:
            self._give_back(connection)

    def lost(self, connection: Connection) -> None:
        """The connection is gone: its place is free."""
        if connection in self._open:
            self._open.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._free_place()

    def sweep(self, now: float) -> None:
        """Fail what takes too long, close what was idle too long."""
        if not self._now:  # the first sweep: what was put back before has no time yet
            for connection in self._idle:
                connection.idle_since = now
        self._now = now
        for exchange in list(self._busy):
            exchange.sweep(now)
        while self._pending and self._pending[0][1] + self._pending_s <= now:
            waiter, _ = self._pending.popleft()
            if not waiter.done():
                waiter.set_exception(PendingTimeoutError(f"{self._pending_s:g} s passed", where=self.name))
        while self._idle and self._idle[0].idle_since + self._keep_s <= now:
            self._idle.pop(0).cut()

    def trim(self, keep: int = 0) -> int:
        """Close idle connections but ``keep``; return how many (for the moment when memory is short)."""
        return self._drop_idle(max(len(self._idle) - keep, 0))

    def close(self) -> None:
        """Close idle connections now and busy ones when they are released. Idempotent."""
        self._closed = True
        self._drop_idle(len(self._idle))

    def abort(self) -> None:
        """Cut every connection, waiters are refused. Idempotent."""
        self.close()
        for connection in list(self._open):
            connection.cut()
        while self._pending:
            waiter, _ = self._pending.popleft()
            if not waiter.done():
                waiter.set_exception(ConnectError("the gateway is leaving", where=self.name))

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            size=self._count,
            bound=self._max_connections,
            bytes=sum(exchange.buffered for exchange in self._busy),
            idle=len(self._idle),
            busy=len(self._busy),
            pending=len(self._pending),
            opened=self._opened,
            failed=self._failed,
            reused=self._reused,
            refused=self._refused,
            cut=self._cut,
        )

    def _give_back(self, connection: Connection) -> None:
        while self._pending:
            waiter, _ = self._pending.popleft()
            if not waiter.done():
                self._reused += 1
                waiter.set_result(connection)
                return
        if self._closed:
            connection.cut()
            return
        connection.idle_since = self._now
        self._idle.append(connection)

    async def _wait(self) -> Connection | None:
        """A connection that came free, or None: permission to open one (its place is taken already)."""
        if len(self._pending) >= self._max_pending:
            self._refused += 1
            raise PendingFullError(f"{len(self._pending)} requests wait", where=self.name, hint="raise max_connections")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        entry = (waiter, loop.time())
        self._pending.append(entry)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                if entry in self._pending:
                    self._pending.remove(entry)
            elif waiter.exception() is None:  # granted, but too late: pass it on
                connection = waiter.result()
                if connection is None:
                    self._free_place()
                elif not connection.closed:
                    self._give_back(connection)
            raise

    def _free_place(self) -> None:
        """A place among max_connections is free: the first waiter may open a connection in it."""
        while self._pending:
            waiter, _ = self._pending.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._count -= 1

    def _drop_idle(self, count: int) -> int:
        for connection in (dropped := self._idle[:count]):
            connection.cut()
        del self._idle[:count]
        return len(dropped)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop),
                    self.origin.host,
                    self.origin.port,
                    ssl=self._tls,
                    server_hostname=self._server_name if self._tls is not None else None,
                )
        except BaseException as error:
            self._failed += 1
            self._free_place()
            if isinstance(error, Exception):
                raise self._told(error) from error
            raise
        if connection.closed:  # between accept and now
            self._failed += 1
            self._free_place()
            raise ConnectError("it was closed at once", where=self.name)
        self._opened += 1
        self._open.add(connection)
        return connection

    def _told(self, error: Exception) -> GatewayError:
        if isinstance(error, TimeoutError):
            return ConnectTimeoutError(f"{self._connect_s:g} s passed", where=self.name)
        if isinstance(error, ssl.SSLError):
            return TlsError(str(error), where=self.name, hint="check ca_file and server_name of its tls section")
        return ConnectError(str(error), where=self.name)
