"""What a run's expressions can see while the run is in memory, and the proof that it goes with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

log = logging.getLogger(__name__)
WATCH_S = 5.0
"""How often the contexts of ended runs are looked for; as often as one may be overdue, if that is less."""
MAX_TOLD = 20
"""Contexts of one look whose holders are looked for."""


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
    """``live`` contexts in memory; ``overdue`` of them outlive their run; ``reported`` have, in total."""

    live: int
    overdue: int
    reported: int


OnOverdue: TypeAlias = "Callable[[Sequence[weakref.ref[Context]]], Awaitable[Sequence[str]]]"
"""Is asked who holds these contexts: a sentence for each, "" where it cannot be told. It must hold none itself."""


class ContextWatch:
    """Knows every live context by weak reference, and names what holds one whose run has ended."""

    def __init__(
        self,
        overdue_s: float,
        on_overdue: OnOverdue | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._overdue_s = overdue_s
        self._on_overdue = on_overdue
        self._clock = clock
        self._live: dict[weakref.ref[Context], tuple[str, float]] = {}
        self._told: set[weakref.ref[Context]] = set()
        self._reported = 0

    def born(self, run_id: str, context: Context) -> weakref.ref[Context]:
        """Watch ``context``; its entry goes when it dies."""
        ref = weakref.ref(context, self._died)
        self._live[ref] = (run_id, 0.0)
        return ref

    def _died(self, ref: weakref.ref[Context]) -> None:
        self._live.pop(ref, None)
        self._told.discard(ref)

    def ended(self, ref: weakref.ref[Context]) -> None:
        """The run of this context is over, so the context must die soon."""
        entry = self._live.get(ref)
        if entry is not None:
            self._live[ref] = (entry[0], self._clock())

    async def run(self) -> None:
        """Say of each context that outlives its run who holds it, once, for as long as the engine runs."""
        while True:
            await asyncio.sleep(min(WATCH_S, self._overdue_s))
            late = self.check()
            if not late:
                continue
            holders = await self._holders([ref for _, ref in late])
            for (run_id, ref), holder in zip(late, holders, strict=True):
                if ref() is not None:  # else it was let go meanwhile
                    text = "the context of run %s outlives it; held by: %s"
                    log.warning(text, run_id, holder or types_of_holders(ref), extra={"run_id": run_id})

    async def _holders(self, references: list[weakref.ref[Context]]) -> list[str]:
        told: Sequence[str] = ()
        if self._on_overdue is not None:
            try:
                told = await self._on_overdue(references[:MAX_TOLD])
            except Exception:
                log.exception("who holds contexts cannot be told")
        return [*told, *[""] * (len(references) - len(told))]

    def check(self) -> list[tuple[str, weakref.ref[Context]]]:
        """The contexts that have become overdue since the last look, after a collection, with their runs."""
        if not self._fresh():
            return []
        gc.collect()
        fresh = self._fresh()
        self._told.update(ref for _, ref in fresh)
        self._reported += len(fresh)
        return fresh

    def _fresh(self) -> list[tuple[str, weakref.ref[Context]]]:
        before = self._clock() - self._overdue_s
        late = [(run_id, ref) for ref, (run_id, at) in self._live.items() if 0.0 < at < before]
        return [(run_id, ref) for run_id, ref in late if ref not in self._told]

    def statistics(self) -> ContextStatistics:
        return ContextStatistics(len(self._live), len(self._told), self._reported)


def types_of_holders(ref: weakref.ref[Context]) -> str:
    """The types of what holds a context, where nobody can tell more. Running frames hold without being listed."""
    kinds = {type(holder).__qualname__ for holder in gc.get_referrers(ref())}
    return ", ".join(sorted(kinds)) or "C code, or a function that is running"
