"""A connection to an upstream: llhttp's events become the state of an exchange."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from flatwater.gateway.error import (
    ResetError,
    ResponseError,
    ResponseSizeError,
    StaleError,
    TruncatedError,
    UpstreamError,
)
from flatwater.gateway.exchange import MAX_BUFFERED_BYTES, Exchange
from flatwater.gateway.message import Headers, tokens
from flatwater.gateway.trailer import permitted

if TYPE_CHECKING:
    from flatwater.gateway.pool import Pool

_WRITE_HIGH_BYTES = 64 * 1024
_MAX_INFORMATIONAL = 16
_MAX_TRAILERS = 64
_WATCHED = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; made by its pool, which it tells when it is lost.

    ``should_keep_alive`` of llhttp is true only in ``on_headers_complete``: at the end of the message it is false.
    """

    __slots__ = (
        "_broken",
        "_chunked",
        "_connection_tokens",
        "_fault",
        "_fields",
        "_parser",
        "_progress",
        "_sized",
        "_stuck_bytes",
        "_transport",
        "closed",
        "exchange",
        "idle_since",
        "loop",
        "pool",
        "reading_paused",
        "uses",
        "writing_paused",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.exchange: Exchange | None = None
        self.closed = False
        self.reading_paused = self.writing_paused = False
        self.uses = 0
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._fault: UpstreamError | None = None
        self._broken = False  # nothing may follow on this connection
        self._progress = False  # the parser made an event since the last bytes
        self._stuck_bytes = 0  # bytes without an event: a head or a trailer that never ends
        self._fields: Headers = []  # of the head or the trailer that is being read
        self._sized = self._chunked = False
        self._connection_tokens: list[bytes] = []

    def begin(self, exchange: Exchange, data: bytes) -> None:
        """Send the head (and what there is of the body) of the next request."""
        self.exchange = exchange
        self.uses += 1
        self.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def resume_reading(self) -> None:
        self.reading_paused = False
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def finish(self, exchange: Exchange, *, reuse: bool) -> None:
        """The exchange is over: back to the pool, or cut."""
        assert self.exchange is exchange
        self.exchange = None
        if not reuse or self._broken or self.closed or self.writing_paused:
            self.cut()
        else:
            if exchange.bodyless:  # llhttp does not know of HEAD and waits for a body
                self._parser = httptools.HttpResponseParser(self)
            if self.reading_paused:
                self.resume_reading()
        self.pool.finished(self, exchange)

    def cut(self) -> None:
        """Close at once, whatever is unsent."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.complete:  # spoken unasked: nothing that follows can be trusted
            self._broken = True
            if exchange is None:
                self.cut()
            return
        exchange.moved = True
        if exchange.tunnel:
            exchange.body(data)
        else:
            self._parse(exchange, data)
        exchange.wake()
        if exchange.buffered >= MAX_BUFFERED_BYTES and not self.reading_paused and self._transport is not None:
            self.reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """Closes the transport, which calls connection_lost."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        exchange = self.exchange
        if exchange is not None:
            if exchange.ready and not exchange.complete and not self._framed() and exc is None:
                exchange.complete = True  # the body lasts until the end of the connection (RFC 9112, 6.3)
                exchange.wake()
            exchange.fail(self._lost(exchange, exc))
            exchange.wake_writer()
        self.pool.lost(self)
        self._transport = None
        del self._parser  # it holds this connection's methods

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.exchange is not None:
            self.exchange.wake_writer()

    # httptools

    def on_message_begin(self) -> None:
        self._progress = True
        exchange = self.exchange
        if exchange is None or exchange.complete:
            self._refuse("bytes follow the answer")
        self._fields = []
        self._sized = self._chunked = False
        self._connection_tokens = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        exchange.response.headers = fields = self._fields
        self._fields = []
        for name, value in fields:
            if name in _WATCHED:
                self._watch(name, value)
        self._progress = True
        self._stuck_bytes = 0
        status = self._parser.get_status_code()
        if status < 200 and not (status == 101 and exchange.upgrade):
            exchange.informational += 1
            if status < 100 or status == 101 or exchange.informational > _MAX_INFORMATIONAL:
                self._refuse(f"an answer of status {status} was not expected")
            return
        if status > 599 or self._parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse(f"status {status} of HTTP/{self._parser.get_http_version()}")
        exchange.response.status = status
        keep_alive = self._parser.should_keep_alive()
        if exchange.bodyless and not self._framed():
            keep_alive = self._parser.get_http_version() == "1.1" and b"close" not in self._connection_tokens
        exchange.keep_alive = keep_alive
        exchange.ready = True
        exchange.complete = exchange.bodyless

    def on_body(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.complete:
            self._refuse("a body follows an answer that has none")
        assert exchange is not None
        self._progress = True
        self._stuck_bytes = 0
        exchange.body(data)

    def on_chunk_header(self) -> None:
        self._progress = True

    def on_message_complete(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        self._progress = True
        if not exchange.ready:  # 1xx: the answer proper follows (RFC 9110, 15.2)
            exchange.interim.append((self._parser.get_status_code(), exchange.response.headers))
            return
        if self._fields:
            if len(self._fields) > _MAX_TRAILERS:
                self._refuse("too many trailers")
            exchange.trailers = permitted(self._fields)
            self._fields = []
        if not exchange.upgrade or exchange.response.status != 101:
            exchange.complete = True

    def _parse(self, exchange: Exchange, data: bytes) -> None:
        self._progress = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(exchange, data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._malformed(exchange, error)
        else:
            if not exchange.ready or not self._progress:
                self._watch_size(exchange, len(data))

    def _watch(self, name: bytes, value: bytes) -> None:
        """Framing: llhttp refuses both kinds at once and repeated lengths; what it lets pass is refused here."""
        if name == b"connection":
            self._connection_tokens += tokens(value)
        elif name == b"content-length":
            self._sized = True
        elif self._chunked or value.strip().lower() != b"chunked":
            self._refuse(f"transfer coding {value[:40]!r}")
        else:
            self._chunked = True

    def _watch_size(self, exchange: Exchange, size: int) -> None:
        self._stuck_bytes += size
        if self._stuck_bytes > self.pool.max_head_bytes:
            part = "trailer" if exchange.ready else "head"
            self._fail(exchange, ResponseSizeError(f"its {part} is larger than {self.pool.max_head_bytes} bytes"))

    def _switch(self, exchange: Exchange, rest: bytes) -> None:
        if not exchange.upgrade or exchange.response.status != 101:
            self._fail(exchange, ResponseError("an upgrade that nobody asked for"))
            return
        exchange.tunnel = True
        if rest:
            exchange.body(rest)

    def _framed(self) -> bool:
        return self._sized or self._chunked

    def _refuse(self, detail: str) -> None:
        self._broken = True
        self._fault = ResponseError(detail, where=self.pool.name)
        raise self._fault

    def _malformed(self, exchange: Exchange, error: httptools.HttpParserError) -> None:
        """Not done in ``_parse``: a fault holds that frame, so that frame must not hold the fault."""
        fault, self._fault = self._fault, None
        self._fail(exchange, fault or ResponseError(str(error)))

    def _fail(self, exchange: Exchange, error: UpstreamError) -> None:
        self._broken = True
        exchange.fail(error)
        self.cut()

    def _lost(self, exchange: Exchange, exc: Exception | None) -> UpstreamError:
        told = f": {exc}" if exc is not None and str(exc) else ""
        if exchange.ready:
            return TruncatedError(f"the connection ended in the middle of the body{told}", where=self.pool.name)
        if self._stuck_bytes or exchange.informational:
            return TruncatedError(f"the connection ended in the middle of the head{told}", where=self.pool.name)
        kind = StaleError if self.uses > 1 else ResetError
        return kind(told.removeprefix(": "), where=self.pool.name)
