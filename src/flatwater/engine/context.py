"""What a run's expressions can see while the run is in memory, and the proof that it goes with it."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

log = logging.getLogger(__name__)


class Context:
    """Inputs, variables and the block outputs that a later expression can still read.

    ``scope`` is the mapping that expressions see: ``taskInputs``, ``blocks`` and ``task``. The copies of a
    ``ParallelRepeatNBp`` have a scope each, with outputs of their own, or each would read what another's block gave.
    Source: the documents' ``TaskContext``, whose five dictionaries outlived their task.
    """

    __slots__ = ("__weakref__", "_copies", "blocks", "inputs", "scope", "variables")

    def __init__(self, inputs: dict[str, Any], task: dict[str, Any]) -> None:
        self.inputs = inputs
        self.variables: dict[str, Any] = {}
        self.blocks: dict[str, dict[str, Any]] = {}
        task["variables"] = self.variables
        self.scope: dict[str, Any] = {"taskInputs": inputs, "blocks": self.blocks, "task": task}
        self._copies: dict[str, dict[str, Any]] = {}

    def scope_at(self, path: str) -> dict[str, Any]:
        """What expressions of the block at ``path`` see."""
        if not self._copies:
            return self.scope
        around = [base for base in self._copies if path.startswith((f"{base}/", f"{base}["))]
        return self._copies[max(around, key=len)] if around else self.scope

    def put(self, path: str, name: str, outputs: dict[str, Any]) -> None:
        """Let what reads at ``path`` see the outputs of the block ``name``."""
        self.scope_at(path)["blocks"][name] = outputs

    def drop(self, path: str, names: Iterable[str]) -> None:
        """Forget outputs that nothing can read any more."""
        blocks = self.scope_at(path)["blocks"]
        for name in names:
            blocks.pop(name, None)

    def copy(self, base: str, path: str, outputs: dict[str, dict[str, Any]], foreign: Iterable[str]) -> None:
        """Give the copy ``base`` of the block at ``path`` a scope of its own.

        ``outputs`` are those that the copy's blocks gave already, ``foreign`` the names that other copies' gave.
        """
        around = self.scope_at(path)
        blocks = {name: given for name, given in around["blocks"].items() if name not in set(foreign)}
        self._copies[base] = {**around, "blocks": {**blocks, **outputs}}

    def join(self, base: str, path: str) -> None:
        """The copy has ended: what follows sees its outputs, those of the last copy in the end."""
        blocks = self._copies.pop(base)["blocks"]
        self.scope_at(path)["blocks"].update(blocks)


class ContextStatistics(msgspec.Struct, frozen=True):
    """``live`` contexts in memory; ``overdue`` outlived their run; ``reported`` of those so far."""

    live: int
    overdue: int
    reported: int


class ContextWatch:
    """Knows every live context by weak reference, and names what holds one whose run has ended."""

    def __init__(self, overdue_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._overdue_s = overdue_s
        self._clock = clock
        self._live: dict[weakref.ref[Context], tuple[str, float]] = {}
        self._overdue = 0
        self._reported = 0

    def born(self, run_id: str, context: Context) -> weakref.ref[Context]:
        """Watch ``context``; its entry goes when it dies."""
        ref = weakref.ref(context, self._died)
        self._live[ref] = (run_id, 0.0)
        return ref

    def _died(self, ref: weakref.ref[Context]) -> None:
        self._live.pop(ref, None)

    def ended(self, ref: weakref.ref[Context]) -> None:
        """The run of this context is over, so the context must die soon."""
        entry = self._live.get(ref)
        if entry is not None:
            self._live[ref] = (entry[0], self._clock())

    def check(self) -> list[str]:
        """Collect once when a context is overdue; return a sentence for each that still lives."""
        if not self._late():
            self._overdue = 0
            return []
        gc.collect()
        reports = [self._report(ref, run_id) for ref, run_id in self._late()]
        self._overdue = len(reports)
        return reports

    def _late(self) -> list[tuple[weakref.ref[Context], str]]:
        before = self._clock() - self._overdue_s
        return [(ref, run_id) for ref, (run_id, at) in self._live.items() if 0.0 < at < before]

    def _report(self, ref: weakref.ref[Context], run_id: str) -> str:
        self._reported += 1
        context = ref()
        kinds = sorted({type(holder).__qualname__ for holder in gc.get_referrers(context)} - {"frame"})
        return f"the context of run {run_id} outlives it; held by: {', '.join(kinds) or 'C code'}"

    def statistics(self) -> ContextStatistics:
        return ContextStatistics(len(self._live), self._overdue, self._reported)
