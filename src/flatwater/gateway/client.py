"""The HTTP/1.1 client of the gateway, behind the interface that the reference implementation shares."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from flatwater.bounded import Ledger
from flatwater.errors import SettingError
from flatwater.gateway.connection import Connection
from flatwater.gateway.error import FramingError, GatewayError
from flatwater.gateway.exchange import Exchange, Tell, Timeouts
from flatwater.gateway.message import Header, Headers, RequestHead, ResponseHead, write_chunk, write_end, write_request
from flatwater.gateway.pool import Origin, Pool, PoolStatistics


class Answer(Protocol):
    """What a client's ``begin`` gives; see :class:`flatwater.gateway.exchange.Exchange`."""

    ready: bool
    complete: bool
    sent: bool
    tunnel: bool
    trailers: Headers
    interim: list[tuple[int, Headers]]
    response: ResponseHead
    error: GatewayError | None
    follow: Callable[[], None] | None

    def tell_interim(self, tell: Tell) -> None: ...
    async def head(self, tell: Tell | None = None) -> ResponseHead: ...
    async def continued(self) -> None: ...
    async def read(self) -> bytes: ...
    def take(self) -> bytes: ...
    async def write(self, data: bytes) -> bool: ...
    async def end(self, trailers: Iterable[Header] = ()) -> None: ...
    def fail(self, error: GatewayError) -> None: ...
    def release(self) -> None: ...


class Client(Protocol):
    """Requests to one endpoint.

    ``begin`` sends the head and ``body``, the part of the request's body that is at hand. ``length`` is the size of
    the whole body, None when it is not known (it goes chunked); ``last`` says that ``body`` is all of a body of unknown
    size. The rest follows by ``write`` and ``end``. ``fresh`` asks for a new connection, for a repetition after a
    StaleError. Raises UpstreamError and the errors of a full pool.
    """

    name: str

    def begin_now(self, head: RequestHead) -> Answer | None:
        """As ``begin`` of a request without a body, if that takes no waiting; else None."""

    async def begin(
        self,
        head: RequestHead,
        *,
        body: bytes = b"",
        length: int | None = 0,
        last: bool = False,
        fresh: bool = False,
    ) -> Answer: ...

    def statistics(self) -> PoolStatistics: ...


class Taker(Protocol):
    """Who is told when its request could be sent, or could not."""

    def begun(self, exchange: Exchange) -> None: ...
    def not_begun(self, error: GatewayError | None) -> None:
        """``error`` is why; without one there is room to open a connection, which takes a task."""


class Turn:
    """A written request that goes over the next connection that comes free (:class:`flatwater.gateway.pool.Waiter`)."""

    __slots__ = ("_client", "_data", "_method", "_over", "_taker")

    def __init__(self, client: HttpClient, method: bytes, data: bytes, taker: Taker) -> None:
        self._client = client
        self._method = method
        self._data = data
        self._taker = taker
        self._over = False

    def done(self) -> bool:
        return self._over

    def set_result(self, connection: Connection | None, /) -> None:
        self._over = True
        if connection is None:
            self._client.pool.give_up_place()
            self._taker.not_begun(None)
        else:
            self._taker.begun(self._client.send_over(connection, self._method, self._data))

    def set_exception(self, error: GatewayError, /) -> None:
        self._over = True
        self._taker.not_begun(error)

    def give_up(self) -> None:
        """It is not wanted any more. Idempotent."""
        if not self._over:
            self._over = True
            self._client.pool.unqueue(self)


class HttpClient:
    """Own client: llhttp and asyncio transports, one pool. ``sweep`` must be called every tick."""

    def __init__(
        self,
        where: Origin,
        *,
        ledger: Ledger,
        timeouts: Timeouts | None = None,
        max_connections: int = 100,
        max_pending: int = 1000,
        pending_s: float = 5.0,
        keep_s: float = 30.0,
        max_head_bytes: int = 64 * 1024,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        self.name = str(where)
        self.timeouts = timeouts or Timeouts()
        if where.scheme == "https" and tls is None:
            tls = tls_context()
        self.pool = Pool(
            where,
            ledger=ledger,
            max_connections=max_connections,
            max_pending=max_pending,
            pending_s=pending_s,
            keep_s=keep_s,
            connect_s=self.timeouts.connect_s,
            max_head_bytes=max_head_bytes,
            tls=tls if where.scheme == "https" else None,
            server_name=server_name,
        )
        self.sweep = self.pool.sweep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def begin_now(self, head: RequestHead) -> Exchange | None:
        return self.send_now(head.method, write_request(head, 0))

    def send_now(self, method: bytes, data: bytes) -> Exchange | None:
        """``begin_now`` of a head that is written already."""
        connection = self.pool.take()
        return None if connection is None else self.send_over(connection, method, data)

    def send_over(self, connection: Connection, method: bytes, data: bytes) -> Exchange:
        exchange = Exchange(connection, method, 0, self.timeouts)
        self.pool.begun(exchange)
        connection.begin(exchange, data)
        return exchange

    def send_in_turn(self, method: bytes, data: bytes, taker: Taker) -> Turn | None:
        """As soon as a connection comes free; None when waiting for one takes a task."""
        turn = Turn(self, method, data, taker)
        return turn if self.pool.queue(turn) else None

    async def begin(
        self,
        head: RequestHead,
        *,
        body: bytes = b"",
        length: int | None = 0,
        last: bool = False,
        fresh: bool = False,
    ) -> Exchange:
        if length is not None and len(body) > length:
            raise FramingError("the body is longer than its Content-Length")
        data = write_request(head, length)
        pool = self.pool
        connection = (None if fresh else pool.take()) or await pool.acquire(fresh=fresh)
        exchange = Exchange(connection, head.method, length, self.timeouts, upgrade=bool(head.upgrade))
        if body:
            data += body if length is not None else write_chunk(body)
        if length is None:
            if last:
                data += write_end(head.trailers)
                exchange.sent = True
        elif body:
            exchange.began(len(body))
        pool.begun(exchange)
        connection.begin(exchange, data)
        return exchange

    async def stop(self) -> None:
        """Cut all connections and wait until the transports have said so. Idempotent."""
        self.pool.abort()
        for _ in range(100):
            if not self.pool.statistics().size:
                return
            await asyncio.sleep(0.01)

    def statistics(self) -> PoolStatistics:
        return self.pool.statistics()


def tls_context(
    *, ca_file: str | None = None, certificate: str | None = None, key: str | None = None, verify: bool = True
) -> ssl.SSLContext:
    """A client's TLS context: peers are verified against ``ca_file`` or the system's authorities; ``certificate`` and
    ``key`` (PEM files) are ours. Raises SettingError when a file does not serve."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SettingError(f"TLS files: {error}", hint="check ca_file, certificate and key") from None
    context.set_alpn_protocols(["http/1.1"])
    return context
