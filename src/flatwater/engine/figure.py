"""What is counted of the runs that pass through an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flatwater.bounded import Histogram
from flatwater.store.state import ENDED

if TYPE_CHECKING:
    from flatwater.bounded import Ledger
    from flatwater.store.run import Claimed

OTHERS: Final = "(others)"
"""Stands for the definitions beyond those that are counted one by one."""


class Figures:
    """Runs that ended here by state and definition, and how long they took and had waited.

    ``durations``: from start to end. ``queued``: from being due to the start, by priority (low: below 0, normal: 0,
    high: above). The first ``max_definitions`` have counts of their own. All in seconds.
    """

    def __init__(self, ageing_s: float, *, ledger: Ledger, max_definitions: int = 100) -> None:
        self._ageing_s = ageing_s
        self._max_definitions = max_definitions
        self.durations = Histogram("run durations", ledger=ledger)
        self.queued = {name: Histogram(f"queue, {name} priority", ledger=ledger) for name in ("low", "normal", "high")}
        self.ended = dict.fromkeys(map(str, sorted(ENDED)), 0)
        self.by_definition: dict[str, dict[str, int]] = {}

    def began(self, row: Claimed, now: float) -> None:
        """An activation begins; the first one of a run ends its time in the queue."""
        if not row.activated:
            due_at = row.rank + row.priority * self._ageing_s
            self.queued[priority_class(row.priority)].add(max(0.0, now - due_at))

    def left(self, row: Claimed, state: str, now: float) -> None:
        """A run has ended."""
        self.ended[state] += 1
        self.durations.add(now - row.started_at)
        counts = self.by_definition.get(row.definition_id)
        if counts is None:
            known = len(self.by_definition) - (OTHERS in self.by_definition)
            name = row.definition_id if known < self._max_definitions else OTHERS
            counts = self.by_definition.setdefault(name, {})
        counts[state] = counts.get(state, 0) + 1


def priority_class(priority: int) -> str:
    """One of few labels for a priority, of which there may be any number."""
    return "normal" if priority == 0 else "high" if priority > 0 else "low"
