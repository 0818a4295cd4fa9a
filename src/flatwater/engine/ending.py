"""How an activation leaves memory: a pure decision from what its walk raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.engine.signal import BlockFailed
from flatwater.store.state import State

if TYPE_CHECKING:
    from flatwater.engine.definition import Retry


class Ending(msgspec.Struct, frozen=True):
    """The state in which a run leaves memory.

    ``state`` QUEUED with ``due_at`` in the future is a retry; with ``due_at`` ``None`` the run was
    given back (shutdown) and is claimable at once.
    """

    state: State
    outputs: dict[str, Any] | None = None
    error: str | None = None
    error_path: str | None = None
    error_kind: str | None = None
    due_at: float | None = None

    @property
    def ended(self) -> bool:
        return self.state in (State.SUCCEEDED, State.FAILED, State.CANCELED)


def stopped(reason: str) -> Ending:
    """The run was told to stop: by a cancel, a pause, its deadline, or the end of the server."""
    if reason == "cancel":
        return Ending(State.CANCELED, error="canceled")
    if reason == "pause":
        return Ending(State.PAUSED)
    if reason == "timeout":
        return Ending(State.FAILED, error="the run took longer than its time-out", error_kind="RunTimeout")
    return Ending(State.QUEUED)


def failed(failure: BlockFailed, attempt: int, retry: Retry | None, now: float) -> Ending:
    """The run failed in its ``attempt``-th attempt: it ends, or is due again after a back-off."""
    facts: dict[str, Any] = {"error": failure.message, "error_path": failure.path, "error_kind": failure.kind}
    if retry is not None and attempt < retry.max_attempts:
        return Ending(State.QUEUED, due_at=now + retry.pause_s(attempt), **facts)
    return Ending(State.FAILED, **facts)
