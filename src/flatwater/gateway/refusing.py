"""How a client's connection ends: after a request that is not acceptable, with its last answer, by the client."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import msgspec

from flatwater.gateway.config import Front
from flatwater.gateway.cycle import Cycle
from flatwater.gateway.error import HeadSizeError, OverloadError, RefusedError, TargetSizeError, VersionError
from flatwater.gateway.intake import Intake
from flatwater.gateway.moment import write as write_date

_MAX_LINGER_BYTES = 16 * 1024 * 1024  # more than sockets hold


class House(Protocol):
    """What connections share: :class:`flatwater.gateway.front.Hall`."""

    front: Front
    now: float
    refused: int


class Refusing(Intake):
    """``cycle`` is the request under way, those in ``_queue`` came after it; what is refused waits its turn."""

    __slots__ = (
        *("_half_closed", "_head_bytes", "_house", "_idle_from", "_queue", "_refusal", "_resting", "_scheme", "cycle"),
        *("side", "silent_from"),
    )

    def __init__(self, house: House) -> None:
        super().__init__(house.front)
        self._house = house
        self.cycle: Cycle | None = None
        self.side: Any = None  # a tunnel's end, once the connection is one
        self._queue: deque[Cycle] = deque()
        self._refusal: RefusedError | None = None  # what is answered when the requests before it are
        self._head_bytes = 0
        self._idle_from = 0.0  # 0: the next sweep sets it
        self._half_closed = False  # the client sends no more
        self.silent_from = 0.0  # since when it has got nothing; 0: the next sweep sets it
        self._resting = True  # nothing is under way: the next bytes begin a request, whose turn it is
        self._scheme = "http"

    def _refuse(self, error: RefusedError) -> None:
        """Answer 400 or the like once it is its turn, then close."""
        self._refusal = error
        self.pause_reading()
        last = self._queue[-1] if self._queue else self.cycle
        if last is not None and last.receiving:  # its body is broken
            if self._queue:
                self._queue.pop()
            else:
                self.cycle = None
            last.disconnect()
            if last.started:
                self.abort()
                return
        if self.cycle is None:
            self._refuse_now(error)

    def _refuse_now(self, error: RefusedError | OverloadError) -> None:
        self._house.refused += 1
        self.transport.write(refusal(error))
        self._part()

    def _part(self) -> None:
        """Close in stages while the client may be sending (RFC 9112, 9.6): bytes that nobody reads would make the
        kernel reset the connection, and the reset destroy the answer on its way."""
        self._refusal = RefusedError()
        self._resting = False
        self._idle_from = self._house.now
        self._head_bytes = 0
        if self.transport.can_write_eof() and not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:  # it was faster
                self.abort()
            self.resume_reading()
        else:
            self.close()

    def eof_received(self) -> bool:
        """A client that has nothing more to send may still read: what it has asked is answered, if that begins soon.
        One that has gone looks the same; TLS knows no half-closed connections."""
        if self.cycle is None or not self._between or self.side is not None or self._scheme == "https":
            return False
        if not self._half_closed:
            self._half_closed = True
            self.silent_from = 0.0
            (self._queue[-1] if self._queue else self.cycle).keep_alive = False
        return self._house.front.half_close_s > 0

    def _check_head(self) -> None:
        if self._in_head and not self._headers and len(self._url) == 0:
            self._refuse(TargetSizeError())
        else:
            self._refuse(HeadSizeError(f"it is larger than {self._limits.max_head_bytes} bytes"))

    def _linger(self, size: int) -> None:
        """More from a client that is to read what it was answered."""
        self._head_bytes += size
        if self._head_bytes > _MAX_LINGER_BYTES:
            self.abort()


def malformed(told: str) -> RefusedError:
    return VersionError(told) if "HTTP version" in told else RefusedError(told)


def refusal(error: RefusedError | OverloadError) -> bytes:
    body = msgspec.json.encode({"title": error.summary, "status": error.status, "reason": error.code})
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
        b"x-flatwater-reason: %b\r\ndate: %b\r\nconnection: close\r\n\r\n%b"
        % (error.status, error.code.encode(), len(body), error.code.encode(), write_date(time.time()), body)
    )
