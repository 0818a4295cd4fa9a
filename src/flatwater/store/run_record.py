"""Runs as the store hands them out and takes them in. JSON stays text; times are seconds since the epoch."""

from __future__ import annotations

import msgspec

from flatwater.store.state import State


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be inserted: QUEUED and ready, QUEUED and due later (queue="due"), or RUNNING already under a worker
    with epoch 1. `rank` orders the ready ones: due_at − priority × ageing. The order of fields is the row's."""

    id: str
    definition_id: str
    label: str
    version: int
    hash: str
    state: str = State.QUEUED
    queue: str | None = "ready"
    rank: float
    due_at: float | None = None
    priority: int = 0
    created_at: float
    started_at: float | None = None
    deadline_at: float | None = None
    epoch: int = 0
    worker: str | None = None
    inputs: str | None = None
    attempt: int = 0
    policy: str | None = None
    out_order_no: str | None = None
    parent_id: str | None = None
    parent_path: str | None = None
    depth: int = 0
    trigger_id: str | None = None


class Claimed(msgspec.Struct, frozen=True):
    """A run that this worker now owns. `epoch` is that of the new activation; `activated` = it ran before, so its
    steps, variables and waiters are to be loaded."""

    id: str
    definition_id: str
    label: str
    version: int
    hash: str
    rank: float
    priority: int
    created_at: float
    started_at: float
    deadline_at: float | None
    epoch: int
    request: str | None
    inputs: str | None
    attempt: int
    policy: str | None
    out_order_no: str | None
    parent_id: str | None
    parent_path: str | None
    depth: int
    locked: bool

    @property
    def activated(self) -> bool:
        return self.epoch > 1


class RunSummary(msgspec.Struct, frozen=True):
    """A line of a list."""

    id: str
    definition_id: str
    label: str
    version: int
    state: str
    priority: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    due_at: float | None
    request: str | None
    error: str | None
    error_path: str | None
    attempt: int
    out_order_no: str | None
    parent_id: str | None
    state_message: str | None
    wait: str | None
    trigger_id: str | None


class RunRow(msgspec.Struct, frozen=True):
    """All of a run."""

    id: str
    definition_id: str
    label: str
    version: int
    hash: str
    state: str
    queue: str | None
    rank: float
    due_at: float | None
    priority: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    deadline_at: float | None
    epoch: int
    worker: str | None
    request: str | None
    inputs: str | None
    outputs: str | None
    response: str | None
    error: str | None
    error_path: str | None
    error_kind: str | None
    attempt: int
    policy: str | None
    out_order_no: str | None
    parent_id: str | None
    parent_path: str | None
    depth: int
    state_message: str | None
    wait: str | None
    locked: bool
    trigger_id: str | None


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shows; None and () mean any. `since` and `until` bound the time in the id: a child is listed with
    the time of its root."""

    states: tuple[str, ...] = ()
    definition: str | None = None
    label: str | None = None
    parent: str | None = None
    trigger: str | None = None
    out_order_no: str | None = None
    since: float | None = None
    until: float | None = None


class Page(msgspec.Struct, frozen=True):
    """`next` continues the list, None at its end."""

    items: list[RunSummary]
    next: str | None


class Submitted(msgspec.Struct, frozen=True):
    id: str
    created: bool


class Grant(msgspec.Struct, frozen=True):
    """A wait that is over. `worker` holds the run in its memory; None: the run was parked and is ready now. `since`,
    where it is given, is that of the wait meant: the same block may wait anew by the time this is heard."""

    run_id: str
    path: str
    granted: str
    worker: str | None
    since: float | None = None


class Requested(msgspec.Struct, frozen=True):
    """`done`: the store has done it all; otherwise the activation of `worker`, or the next one, will. `grants`: whoever
    waited for a run that was canceled here."""

    state: str
    worker: str | None
    done: bool
    grants: tuple[Grant, ...] = ()


class Canceled(msgspec.Struct, frozen=True):
    """`children` are the runs it had started that have not ended, `grants` whoever waited for it."""

    children: list[str]
    grants: tuple[Grant, ...] = ()
