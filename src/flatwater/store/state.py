"""The states of runs and of their blocks."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """A run is in one of the first eight; SKIPPED is for blocks only."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    NEEDS_OPERATOR = "NEEDS_OPERATOR"
    SKIPPED = "SKIPPED"


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})
RUN_STATES = tuple(state for state in State if state is not State.SKIPPED)
