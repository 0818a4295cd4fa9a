"""Runs, their blocks and logs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from flatwater.server.type.base import MAX_ITEMS, Cursor, Id, Key, Limit, Paging, Time, TraceHeaders

RunState = Literal["QUEUED", "RUNNING", "WAITING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELED", "NEEDS_OPERATOR"]


class RetryPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``max_attempts`` counts the first one; retry n waits ``delay_s * factor**(n-1)``, at most ``max_delay_s``."""

    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | UnsetType = UNSET
    delay_s: Annotated[float, Meta(ge=0, le=86400)] | UnsetType = UNSET
    factor: Annotated[float, Meta(ge=1, le=100)] | UnsetType = UNSET
    max_delay_s: Annotated[float, Meta(ge=0, le=30 * 86400)] | UnsetType = UNSET
    jitter: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class Submission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run to start: ``definition`` is an id; ``due_at`` or ``delay_s`` says when; higher ``priority`` goes first."""

    definition: Id
    inputs: dict[str, Any] = {}
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    due_at: Time | None = None
    delay_s: Annotated[float, Meta(ge=0, le=10 * 366 * 86400)] = 0.0
    idempotency_key: Key | None = None
    retry: RetryPolicy | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=10 * 366 * 86400)] | None = None


class SubmissionHeaders(TraceHeaders, frozen=True, kw_only=True, rename="kebab"):
    idempotency_key: Key | None = None


class Submitted(Struct, frozen=True):
    id: str
    state: str


class RunQuery(Paging, frozen=True, kw_only=True):
    state: Annotated[tuple[RunState, ...], Meta(max_length=8, description="States, separated by commas.")] = ()
    definition: Id | None = None
    label: Id | None = None
    parent: Id | None = None
    out_order_no: Id | None = None
    after: Time | None = None
    before: Time | None = None


class Wait(Struct, frozen=True):
    """What a block waits for, since when, and its ``place`` in the queue (1 is next; only shown for one run).

    The place counts all before it that may take the same site or robot, so it may be served sooner.
    """

    path: str
    kind: str
    reason: str = ""
    since: float | None = None
    place: int | None = None


class Run(Struct, frozen=True, kw_only=True):
    id: str
    definition: str
    label: str
    version: int
    state: str
    priority: int
    due_at: float | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempt: int
    error: str | None
    error_path: str | None
    parent_id: str | None
    out_order_no: str | None
    state_message: str | None
    wait: list[Wait] | None


class RunDetail(Run, frozen=True, kw_only=True):
    """With its values; one of more than 256 KiB is shown as ``{"truncated": characters}``."""

    inputs: Raw
    outputs: Raw
    variables: dict[str, Raw]
    response: Raw


class Node(Struct, frozen=True):
    """A block of the definition; a step belongs to the node with its ``block_id``."""

    id: int
    name: str
    type: str
    children: dict[str, list[Node]] = {}


class Step(Struct, frozen=True, kw_only=True):
    """One execution of a block: ``path`` is ids plus loop indices, e.g. ``-1/3[2]/5``."""

    path: str
    block_id: int
    name: str
    type: str
    state: str
    attempt: int
    started_at: float | None
    ended_at: float | None
    outputs: Raw
    error: str | None
    progress: Raw
    wait: Wait | None = None


class StepQuery(Struct, frozen=True, kw_only=True):
    limit: Limit = MAX_ITEMS
    cursor: Cursor | None = None


class Blocks(Struct, frozen=True):
    """The definition's ``tree`` (on the first page) and the ``steps`` taken, in order of their paths."""

    tree: Node | None
    steps: list[Step]
    next: str | None = None


class LogLine(Struct, frozen=True):
    at: float
    level: str
    path: str | None
    message: str
