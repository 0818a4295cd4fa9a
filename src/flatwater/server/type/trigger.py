"""Triggers, external events, and the stream of live ones."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from flatwater.server.type.base import Id, Paging, Text


class TriggerInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Starts runs: each ``interval``, by ``cron``, at an ``event``, or as a kind of a user's package says.

    ``spec`` is the interval in seconds, a cron line (five or six fields, UTC unless a time zone follows), the event's
    name, or what the package's kind makes of it. No more than ``max_pending`` of its runs are open at a time.
    """

    id: Id
    definition_id: Id
    kind: Annotated[str, Meta(min_length=1, max_length=100, examples=["interval", "cron", "event"])]
    spec: Annotated[str, Meta(min_length=1, max_length=255)]
    inputs: dict[str, Any] = {}
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    enabled: bool = True
    max_pending: Annotated[int, Meta(ge=1, le=1_000)] = 1


class Trigger(Struct, frozen=True, kw_only=True):
    id: str
    definition_id: str
    kind: str
    spec: str
    inputs: Raw
    priority: int
    enabled: bool
    max_pending: int
    next_at: float | None
    last_at: float | None
    last_run_id: str | None


class EventInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Id
    data: Any = None


class Delivered(Struct, frozen=True):
    """``delivered`` waits were satisfied; ``started`` are the runs that triggers began."""

    delivered: int
    started: list[str]


class EventQuery(Paging, frozen=True, kw_only=True):
    name: Id | None = None


class Event(Struct, frozen=True):
    id: int
    at: float
    name: str
    data: Raw


class StreamQuery(Struct, frozen=True, kw_only=True):
    types: Annotated[tuple[Text, ...], Meta(max_length=20, description="Event types, separated by commas.")] = ()
    run: Annotated[Id, Meta(description="Block and log events of this run only.")] | None = None
    token: Annotated[str, Meta(description="The token, for clients that can set no headers.")] | None = None


class StreamHeaders(Struct, frozen=True, kw_only=True):
    last_event_id: Annotated[str, Meta(max_length=100)] = msgspec.field(default="", name="last-event-id")
