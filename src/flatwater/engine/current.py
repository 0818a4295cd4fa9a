"""Which run the code at work belongs to, for those who are not told: logging inside a block, above all."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

RUN_ID: Final[ContextVar[str]] = ContextVar("flatwater_run_id", default="")
"""Set in the task of an activation; its branches and its functions in threads have it too. Empty outside of runs."""
