"""Live events over server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

A subscriber is a place in the engine's bounded fan-out: a slow one loses the oldest events and is told by a ``gap``.
Ids are ``BOOT-SEQ``: after a restart of the server the numbers begin again, so an id of another boot means a gap too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from flatwater.bounded.fanout import Fanout, Message

Event = Mapping[str, Any]
Write = Callable[[bytes], Any]


class Resume(msgspec.Struct, frozen=True):
    """Where a subscriber wants to go on: ``after`` this number; ``foreign`` when its id is of another boot."""

    after: int | None
    foreign: bool = False


def resume(last_event_id: str, boot: str) -> Resume:
    """What ``Last-Event-ID`` asks for. What nobody ever sent counts as another boot's."""
    if not last_event_id:
        return Resume(None)
    theirs, _, seq = last_event_id.rpartition("-")
    if theirs == boot and seq.isdecimal() and len(seq) < 19:
        return Resume(int(seq))
    return Resume(None, foreign=True)


def frame(message: Message[Event], boot: str) -> bytes:
    """One event as text, after the ``gap`` for what was lost before it."""
    kind = str(message.item.get("type", "event"))
    data = msgspec.json.encode(message.item)
    head = gap(message.lost) if message.lost else b""
    return b"%sid: %s-%d\nevent: %s\ndata: %s\n\n" % (head, boot.encode(), message.seq, kind.encode(), data)


def gap(missed: int | None) -> bytes:
    """Tells that ``missed`` events (None: nobody knows how many) are gone, and the page should look again."""
    return b"event: gap\ndata: %s\n\n" % msgspec.json.encode({"type": "gap", "missed": missed})


class Stream:
    """The events that one subscriber gets, written as they come."""

    def __init__(self, events: Fanout[Any], *, boot: str, heartbeat_s: float, write_timeout_s: float) -> None:
        self._events = events
        self._boot = boot
        self._heartbeat_s = heartbeat_s
        self._write_timeout_s = write_timeout_s

    async def serve(self, write: Write, last_event_id: str, kinds: frozenset[str]) -> None:
        """Write until the fan-out stops, the task is cancelled or a write takes too long (TimeoutError).

        ``kinds`` are the wanted event types, all when empty. Raises LimitError when too many listen already.
        """
        place = resume(last_event_id, self._boot)
        wants = (lambda event: event.get("type") in kinds) if kinds else None
        with self._events.subscribe(after=place.after, wants=wants) as subscription:
            await self._write(write, b"retry: 1000\n\n" + (gap(None) if place.foreign else b""))
            while not subscription.ended:
                messages = await subscription.batch(timeout_s=self._heartbeat_s)
                text = b"".join(frame(message, self._boot) for message in messages) or b": alive\n\n"
                await self._write(write, text)

    async def _write(self, write: Write, text: bytes) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            await write(text)
