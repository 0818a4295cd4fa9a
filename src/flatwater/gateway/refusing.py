"""A client's connection on which something came that is no acceptable request."""

from __future__ import annotations

import time
from collections import deque

import msgspec

from flatwater.gateway.config import Front
from flatwater.gateway.cycle import Cycle
from flatwater.gateway.error import HeadSizeError, OverloadError, RefusedError, TargetSizeError, VersionError
from flatwater.gateway.intake import Intake
from flatwater.gateway.moment import write as write_date

_MAX_LINGER_BYTES = 1024 * 1024


class Refusing(Intake):
    """``cycle`` is the request under way, those in ``_queue`` came after it; what is refused waits its turn."""

    __slots__ = ("_head_bytes", "_queue", "_refusal", "cycle")

    def __init__(self, limits: Front) -> None:
        super().__init__(limits)
        self.cycle: Cycle | None = None
        self._queue: deque[Cycle] = deque()
        self._refusal: RefusedError | None = None  # what is answered when the requests before it are
        self._head_bytes = 0

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
        """It is its turn."""
        raise NotImplementedError

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
