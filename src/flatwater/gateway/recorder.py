"""Collecting the body of a response on its way through, for the cache."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from flatwater.gateway.found import Miss
from flatwater.gateway.freshness import Terms
from flatwater.gateway.validation import Headers


class Room:
    """Bytes that recorders hold together."""

    __slots__ = ("held", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0

    def take(self, count: int) -> bool:
        """Reserve bytes; False when there is no room."""
        if self.held + count > self.max_bytes:
            return False
        self.held += count
        return True


class Keeper(Protocol):
    """What gets the responses: :class:`flatwater.gateway.cache.HttpCache`."""

    def outgrown(self, recorder: Recorder) -> None:
        """A response turned out too large to be kept; what is stored in its place is out of date."""

    def keep(self, recorder: Recorder, body: bytes) -> bool:
        """Store a complete response; False when it was not kept."""


class Recorder:
    """Give it each chunk of the body, and ``commit`` after the last. Leaving the ``with`` block forgets the rest.

    A body that grows above ``max_bytes``, or for which there is no room, is given up silently: ``given_up``.
    """

    __slots__ = (
        "_chunks",
        "_keeper",
        "_length",
        "_room",
        "asked_at",
        "expected",
        "found",
        "given_up",
        "headers",
        "max_bytes",
        "status",
        "terms",
    )

    def __init__(
        self,
        keeper: Keeper,
        room: Room,
        found: Miss,
        status: int,
        headers: Headers,
        terms: Terms,
        *,
        asked_at: float,
        expected: int | None,
        max_bytes: int,
    ) -> None:
        self._keeper = keeper
        self._room = room
        self.found = found
        self.status = status
        self.headers = headers
        self.terms = terms
        self.asked_at = asked_at
        self.expected = expected
        self.max_bytes = max_bytes
        self.given_up = False
        self._chunks: list[bytes] = []
        self._length = 0

    def add(self, chunk: bytes) -> None:
        """Note the next piece of the body. It is not copied."""
        if self.given_up or not chunk:
            return
        self._length += len(chunk)
        if self._length > self.max_bytes or not self._room.take(len(chunk)):
            self._length -= len(chunk)
            self.abandon()
            self._keeper.outgrown(self)
            return
        self._chunks.append(chunk)

    def commit(self) -> bool:
        """Store the response: its body is complete. False when it was not kept. Later calls do nothing."""
        if self.given_up:
            return False
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.abandon()
        if self.expected is not None and self.expected != len(body):
            return False
        return self._keeper.keep(self, bytes(body))

    def abandon(self) -> None:
        """Forget what was collected. Idempotent."""
        self.given_up = True
        self._room.held -= self._length
        self._length = 0
        self._chunks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()
