"""The reference implementation of :class:`flatwater.gateway.client.Client` on aiohttp: slower by far, and an oracle.

It has no ``begin_now`` and no upgrades; trailers are dropped, as aiohttp does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from flatwater.bounded import Ledger, TaskGroup
from flatwater.gateway.error import (
    ConnectError,
    FirstByteTimeoutError,
    FramingError,
    GatewayError,
    ResetError,
    ResponseError,
    TruncatedError,
    UpstreamError,
)
from flatwater.gateway.exchange import Timeouts
from flatwater.gateway.message import Header, Headers, RequestHead, ResponseHead
from flatwater.gateway.pool import Origin, PoolStatistics

_READ_BYTES = 64 * 1024


class AiohttpExchange:
    """One request and its answer; see :class:`flatwater.gateway.exchange.Exchange`."""

    def __init__(self, client: AiohttpClient, head: RequestHead, body: bytes, length: int | None, last: bool) -> None:
        self.ready = self.complete = self.tunnel = False
        self.sent = last or length == len(body)
        self.trailers: Headers = []
        self._length = length
        self._left = None if length is None else length - len(body)
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)
        if body:
            self._queue.put_nowait(body)
        if self.sent:
            self._queue.put_nowait(b"")
        self._response: aiohttp.ClientResponse | None = None
        self._error: GatewayError | None = None
        self._has_body = length != 0
        self._task = client.tasks.start(self._ask(client, head), name="aiohttp request")

    async def head(self) -> ResponseHead:
        await asyncio.wait([self._task])
        if self._error is not None:
            raise self._error
        response = self._response
        assert response is not None
        self.ready = True
        headers = [(name.lower(), value) for name, value in response.raw_headers]
        return ResponseHead(response.status, headers)

    async def continued(self) -> None:
        await asyncio.wait([self._task])

    async def read(self) -> bytes:
        assert self._response is not None
        try:
            data = await self._response.content.read(_READ_BYTES)
        except aiohttp.ClientError as error:
            raise TruncatedError(str(error)) from error
        except TimeoutError as error:
            raise FirstByteTimeoutError(str(error)) from error
        self.complete = not data
        return data

    def take(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> bool:
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise FramingError("the body is longer than its Content-Length")
        put = asyncio.wait_for(self._queue.put(data), 60)
        await put
        return not self._task.done()

    async def end(self, trailers: Iterable[Header] = ()) -> None:
        if self._left:
            raise FramingError("the body is shorter than its Content-Length")
        if not self.sent:
            self.sent = True
            await self._queue.put(b"")

    def fail(self, error: GatewayError) -> None:
        self._error = error
        self._task.cancel()

    def release(self) -> None:
        self._task.cancel()
        if self._response is not None:
            if self.complete:
                self._response.release()
            else:
                self._response.close()

    async def _ask(self, client: AiohttpClient, head: RequestHead) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        headers += [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, _, value in (line.partition(b": ") for line in head.lines.split(b"\r\n") if line)
        ]
        if self._length:
            headers.append(("content-length", str(self._length)))
        try:
            self._response = await client.session.request(
                head.method.decode(),
                URL(f"{client.name}{head.target.decode('latin-1')}", encoded=True),
                headers=headers,
                data=self._body() if self._has_body else None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._error = _typed(error)

    async def _body(self) -> AsyncIterator[bytes]:
        while data := await self._queue.get():
            yield data


class AiohttpClient:
    """Requests to one endpoint by aiohttp; enter it."""

    def __init__(self, where: Origin, *, ledger: Ledger, timeouts: Timeouts | None = None, limit: int = 100) -> None:
        self.name = str(where)
        self._timeouts = timeouts or Timeouts()
        self._limit = limit
        self.tasks = TaskGroup(f"aiohttp requests to {where}", max_tasks=10 * limit, ledger=ledger)

    async def __aenter__(self) -> Self:
        times = self._timeouts
        await self.tasks.__aenter__()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limit),
            timeout=aiohttp.ClientTimeout(times.total_s, sock_connect=times.connect_s, sock_read=times.first_byte_s),
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tasks.stop()
        await self.session.close()

    def begin_now(self, head: RequestHead) -> AiohttpExchange | None:
        return None

    async def begin(
        self,
        head: RequestHead,
        *,
        body: bytes = b"",
        length: int | None = 0,
        last: bool = False,
        fresh: bool = False,
    ) -> AiohttpExchange:
        return AiohttpExchange(self, head, body, length, last)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            size=len(self.tasks),
            bound=self._limit,
            idle=0,
            busy=len(self.tasks),
            pending=0,
            opened=0,
            failed=0,
            reused=0,
            refused=0,
            cut=0,
        )


def _typed(error: Exception) -> UpstreamError:
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectError(str(error))
    if isinstance(error, TimeoutError):
        return FirstByteTimeoutError(str(error))
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return ResetError(str(error))
    return ResponseError(str(error))
