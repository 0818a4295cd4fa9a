"""A connection's transport with back-pressure both ways."""

from __future__ import annotations

import asyncio
from typing import cast


class Flow(asyncio.Protocol):
    """What flows over a client's connection may be halted: reading by us, writing by the transport."""

    __slots__ = ("closed", "loop", "reading_paused", "transport", "writable", "writing_paused")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.closed = False
        self.reading_paused = self.writing_paused = False
        self.writable: asyncio.Future[None] | None = None

    def eof_received(self) -> bool:
        """False closes the transport, which calls connection_lost."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._wake_writer()

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._wake_writer()

    def pause_reading(self) -> None:
        if not self.reading_paused and not self.closed:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and not self.closed:
            self.reading_paused = False
            self.transport.resume_reading()

    async def drain(self) -> None:
        while self.writing_paused and not self.closed:
            if self.writable is None or self.writable.done():
                self.writable = self.loop.create_future()
            await self.writable

    def close(self) -> None:
        """Close when what was written is sent."""
        if not self.closed:
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def _wake_writer(self) -> None:
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
