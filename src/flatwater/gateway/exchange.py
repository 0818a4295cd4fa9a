"""One request and its answer on a connection to an upstream, as the reader and the writer of it see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from flatwater.gateway.error import (
    FirstByteTimeoutError,
    FramingError,
    GatewayError,
    IdleTimeoutError,
    TotalTimeoutError,
)
from flatwater.gateway.message import Header, Headers, ResponseHead, write_chunk, write_end

if TYPE_CHECKING:
    from flatwater.gateway.connection import Connection

Tell = Callable[[int, Headers], None]
"""Takes status and fields of an interim answer (RFC 9110, section 15.2)."""

MAX_BUFFERED_BYTES = 64 * 1024
"""How much of an answer waits for a slow reader, beside the one read (at most 256 KiB) that fills it up."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. ``connect_s``: name look-up, TCP and TLS; ``first_byte_s``: from the whole request sent to the answer's
    head; ``idle_s``: nothing moved either way; ``total_s``: all of it. Held to within a tick of the sweeper (0.1 s)."""

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    idle_s: float = 60.0
    total_s: float = 3600.0


class Exchange:
    """``await head()``, then ``await read()`` until it gives ``b""``; ``release()`` in a ``finally`` in any case.
    Or set ``follow``, which is called whenever ``ready``, ``complete``, ``error`` or what ``take`` gives has changed.

    The connection goes back to its pool on release when both sides are complete, else it is cut. Every failure of the
    upstream is raised from ``head``, ``read``, ``write`` or ``end`` as an UpstreamError; none of them can hang, since
    the pool's sweep fails an exchange whose time is over.
    """

    __slots__ = (
        "_chunked",
        "_chunks",
        "_connection",
        "_drain",
        "_first_byte_from",
        "_idle_from",
        "_left",
        "_started",
        "_timeouts",
        "_waiter",
        "bodyless",
        "buffered",
        "complete",
        "error",
        "follow",
        "informational",
        "interim",
        "keep_alive",
        "method",
        "moved",
        "ready",
        "response",
        "sent",
        "trailers",
        "tunnel",
        "upgrade",
    )

    def __init__(
        self, connection: Connection, method: bytes, length: int | None, timeouts: Timeouts, *, upgrade: bool = False
    ) -> None:
        self._connection: Connection | None = connection
        self._timeouts = timeouts
        self._chunks: list[bytes] = []
        self.buffered = 0
        self.follow: Callable[[], None] | None = None  # called at each change, in place of a waiting reader
        self._waiter: asyncio.Future[None] | None = None
        self._drain: asyncio.Future[None] | None = None
        self._chunked = length is None
        self._left = length or 0  # bytes of a sized request body that were not written yet
        self._started = self._idle_from = self._first_byte_from = 0.0  # set by the sweep; 0: not yet seen
        self.method = method
        self.upgrade = upgrade
        self.response = ResponseHead(0, [])
        self.trailers: Headers = []
        self.informational = 0  # answers of 1xx so far
        self.interim: list[tuple[int, Headers]] = []  # those of them that the client may want to see
        self.bodyless = method == b"HEAD"
        self.ready = False  # the head of the final answer is here
        self.complete = False  # the whole answer is here
        self.sent = not upgrade and length == 0  # the whole request was given to the transport
        self.keep_alive = False
        self.tunnel = False  # 101: bytes from here on
        self.moved = False  # something moved since the last sweep
        self.error: GatewayError | None = None

    async def head(self, tell: Tell | None = None) -> ResponseHead:
        """The final answer's head, once it is here. ``tell`` gets those before it (1xx) as they come."""
        while True:
            if tell is not None and self.interim:
                self.tell_interim(tell)
            if self.ready:
                return self.response
            if self.error is not None:
                raise self.error
            await self._wait()

    def tell_interim(self, tell: Tell) -> None:
        """Give ``tell`` what came before the final answer and was not told yet."""
        interim, self.interim = self.interim, []
        for status, headers in interim:
            tell(status, headers)

    async def continued(self) -> None:
        """Wait for ``100 Continue`` or anything that makes it pointless to wait."""
        while not (self.ready or self.informational):
            if self.error is not None:
                raise self.error
            await self._wait()

    async def read(self) -> bytes:
        """What has arrived of the body; waits for more when nothing has; ``b""`` at its end."""
        while True:
            if self._chunks:
                return self.take()
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            await self._wait()

    def take(self) -> bytes:
        """What has arrived of the body, without waiting; ``b""`` when nothing has (see ``complete``)."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        self.moved = True
        connection = self._connection
        if connection is not None and connection.reading_paused:
            connection.resume_reading()
        return data

    async def write(self, data: bytes) -> bool:
        """Send part of the request's body, waiting while the upstream does not take it.

        False when the upstream wants no more of it: it has answered in full, or closed after its answer. Raises
        FramingError when the body is longer than was announced.
        """
        if not data:
            return True
        connection = self._writable()
        if connection is None:
            return False
        self.moved = True
        if self._chunked:
            data = write_chunk(data)
        elif not self.tunnel:
            self._left -= len(data)
            if self._left < 0:
                raise FramingError("the body is longer than its Content-Length")
            self.sent = self._left == 0
        connection.write(data)
        if connection.writing_paused:
            await self._drained(connection)
        return self._writable() is not None

    async def end(self, trailers: Iterable[Header] = ()) -> None:
        """The request's body is over. Raises FramingError when it is shorter than was announced."""
        connection = self._writable()
        if connection is None or self.sent:
            return
        if self._chunked:
            connection.write(write_end(trailers))
        elif self._left:
            raise FramingError("the body is shorter than its Content-Length")
        self.moved = self.sent = True

    def release(self) -> None:
        """Give the connection back, or cut it when the exchange is not over. Idempotent."""
        self.error = None  # once raised, it holds the frames that hold this
        connection = self._connection
        if connection is None:
            return
        self._connection = self.follow = None
        self._chunks.clear()
        self.buffered = 0
        connection.finish(self, reuse=self.complete and self.sent and self.keep_alive and not self.tunnel)

    def sweep(self, now: float) -> None:
        """Fail the exchange when one of its times is over; called by the pool every tick."""
        if self.complete or self.error is not None:
            return
        if not self._started:
            self._started = self._idle_from = now
        times = self._timeouts
        if self.moved:
            self.moved = False
            self._idle_from = now
        if self.sent and not self.ready:
            if not self._first_byte_from:
                self._first_byte_from = now
            if now - self._first_byte_from >= times.first_byte_s:
                self.fail(FirstByteTimeoutError(f"{times.first_byte_s:g} s passed"))
        elif now - self._idle_from >= times.idle_s:
            self.fail(IdleTimeoutError(f"{times.idle_s:g} s passed"))
        if now - self._started >= times.total_s and not self.tunnel:
            self.fail(TotalTimeoutError(f"{times.total_s:g} s passed"))

    # What the client and the connection call.

    def began(self, count: int) -> None:
        """``count`` bytes of a sized body went with the head."""
        self._left -= count
        self.sent = self._left == 0

    def body(self, data: bytes) -> None:
        """Keep part of the body; ``wake`` follows."""
        self._chunks.append(data)
        self.buffered += len(data)

    def fail(self, error: GatewayError) -> None:
        if self.error is None and not self.complete:
            self.error = error
            self.wake()
            self.wake_writer()

    def wake(self) -> None:
        """Something has changed: the reader looks again."""
        if self.follow is not None:
            self.follow()
            return
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def wake_writer(self) -> None:
        drain = self._drain
        if drain is not None:
            self._drain = None
            if not drain.done():
                drain.set_result(None)

    def _wait(self) -> asyncio.Future[None]:
        assert self._waiter is None or self._waiter.done(), "two readers of one exchange"
        connection = self._connection
        assert connection is not None, "the exchange was released"
        waiter = self._waiter = connection.loop.create_future()
        return waiter

    def _writable(self) -> Connection | None:
        if self.error is not None:
            raise self.error
        connection = self._connection
        return None if connection is None or connection.closed else connection

    async def _drained(self, connection: Connection) -> None:
        while connection.writing_paused and not connection.closed and self.error is None:
            if self._drain is None or self._drain.done():
                self._drain = connection.loop.create_future()
            await self._drain
        if self.error is not None:
            raise self.error
