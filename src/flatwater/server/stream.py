"""Live events over server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

A subscriber is a place in the engine's bounded fan-out: a slow one loses the oldest events and is told by a ``gap``.
Ids are ``BOOT-SEQ``: after a restart of the server the numbers begin again, so an id of another boot means a gap too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from flatwater.bounded.fanout import Fanout, Message, Subscription
from flatwater.bounded.task import TaskGroup
from flatwater.server.reply import Send
from flatwater.server.request import Receive

Event = Mapping[str, Any]


class Resume(msgspec.Struct, frozen=True):
    """Where a subscriber wants to go on: ``after`` this number; ``foreign`` when its id is of another boot."""

    after: int | None
    foreign: bool = False


def resume(last_event_id: str, boot: str) -> Resume:
    """What ``Last-Event-ID`` asks for. What nobody ever sent counts as another boot's."""
    if not last_event_id:
        return Resume(None)
    theirs, _, seq = last_event_id.rpartition("-")
    if theirs == boot and seq.isascii() and seq.isdigit() and len(seq) < 19:
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
    """Answers one subscriber, for as long as it listens."""

    def __init__(
        self, events: Fanout[Any], tasks: TaskGroup, *, boot: str, heartbeat_s: float, write_timeout_s: float
    ) -> None:
        self._events = events
        self._tasks = tasks
        self._boot = boot
        self._heartbeat_s = heartbeat_s
        self._write_timeout_s = write_timeout_s

    async def respond(self, wants: Callable[[Event], bool], last_event_id: str, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, stalls, or the fan-out stops.

        Raises LimitError, before anything is sent, when too many listen already. A client that takes nothing for
        ``write_timeout_s`` loses its place at once; its connection goes with the socket's own time-out.
        """
        place = resume(last_event_id, self._boot)
        with self._events.subscribe(after=place.after, wants=wants) as subscription:
            watcher = self._tasks.start(_until_gone(receive, subscription), name="stream client")
            try:
                head = b"retry: 1000\n\n" + (gap(None) if place.foreign else b"")
                await self._send(send, {"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await self._send(send, _part(head))
                await self._pump(subscription, send)
            except TimeoutError:
                subscription.close()
                await asyncio.wait([watcher])
            finally:
                watcher.cancel()

    async def _pump(self, subscription: Subscription[Any], send: Send) -> None:
        while not subscription.ended:
            messages = await subscription.batch(timeout_s=self._heartbeat_s)
            text = b"".join(frame(message, self._boot) for message in messages)
            await self._send(send, _part(text or b": alive\n\n"))
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            await send(message)


_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


def _part(text: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": True}


async def _until_gone(receive: Receive, subscription: Subscription[Any]) -> None:
    """A client that leaves says nothing to a writer: only receiving tells."""
    while (await receive())["type"] != "http.disconnect":
        pass
    subscription.close()


def chooser(kinds: Collection[str], run: str | None) -> Callable[[Event], bool]:
    """Which events a subscriber wants: of these types (all when there are none), and of blocks those of ``run``."""
    chosen = frozenset(kinds)

    def wants(event: Event) -> bool:
        if chosen and event.get("type") not in chosen:
            return False
        return run is None or event.get("run_id", run) == run

    return wants
