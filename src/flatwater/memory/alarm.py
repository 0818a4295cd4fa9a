"""Rules over what a process sees of itself, looked at from time to time; told to log, commands, webhooks; counted."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from flatwater.bounded import Ledger
from flatwater.memory import procfs
from flatwater.memory.alert import Alerts, AlertStatistics, Observation, parse
from flatwater.memory.alert_delivery import Delivery, sink

_MACHINE: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

Figures = Mapping[str, float | None]
"""By the names that rules use; what is not known is None."""


class Alarm:
    """``async with``; its task ``run`` looks every ``every_s``. ``read`` gives the figures of now, and the memory limit
    if there is one (the machine's memory stands for it). ``label`` names the process in alerts; ``counts`` are figures
    without a unit that rules may name beside those of :mod:`flatwater.memory.alert`.

    Raises RuleError and SinkError for wrong rules and places.
    """

    def __init__(
        self,
        rules: Sequence[str],
        to: Sequence[str],
        read: Callable[[], tuple[Figures, int | None]],
        every_s: float,
        *,
        source: str,
        label: str,
        ledger: Ledger,
        counts: Sequence[str] = (),
    ) -> None:
        self._alerts = Alerts([parse(rule, counts=counts) for rule in rules], name=f"{source} alerts")
        self._delivery = Delivery([sink(text) for text in to])
        self._read = read
        self._every_s = every_s
        self._source = source
        self._label = label
        ledger.register(self._alerts)
        ledger.register(self._delivery)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._delivery.close)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(self._every_s)

    def look(self) -> None:
        """Decide on the figures of now."""
        now = time.monotonic()
        values, limit = self._read()
        figures = {name: float(value) for name, value in values.items() if value is not None}
        limit = limit or _MACHINE
        batch = [Observation(source=self._source, label=self._label, at=now, values=figures, limit=float(limit))]
        group = procfs.cgroup()
        if group is not None:
            kills = {"oom_kills": float(group.oom_kills)}
            batch.append(Observation(source=group.path, label=f"control group {group.path}", at=now, values=kills))
        for event in self._alerts.observe(batch):
            self._delivery.send(event)

    def active(self) -> list[str]:
        """The rules that are broken now."""
        return [rule for rule, _ in self._alerts.active()]

    @property
    def raised(self) -> int:
        """Alerts since the start."""
        return self.statistics().raised

    def statistics(self) -> AlertStatistics:
        return self._alerts.statistics()
