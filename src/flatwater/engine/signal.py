"""How control leaves a block other than by its result.

Signals derive from ``BaseException`` so that a block's own ``except Exception`` cannot swallow them.
"""

from __future__ import annotations

from flatwater.errors import RunError


class Signal(BaseException):
    """Control flow inside one activation; never seen outside it."""


class Parked(Signal):
    """Everything left in the run waits, or the run was told to pause: it leaves memory."""


class LoopBroken(Signal):
    """``BreakBp``: the innermost loop ends."""


class RunReturned(Signal):
    """``ReturnBp``: the run ends as succeeded."""


class BranchStopped(Signal):
    """A sibling ended this branch."""


class OperatorNeeded(Signal):
    """A block may or may not have reached the outside before a crash; only a person can know."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class BlockFailed(Exception):
    """A block failed for good: ``path`` says which, ``kind`` is the class of the cause."""

    def __init__(self, path: str, name: str, message: str, kind: str) -> None:
        super().__init__(message)
        self.path = path
        self.name = name
        self.message = message
        self.kind = kind


class WaitTimeout(RunError):
    """What the block waited for did not come in time."""
