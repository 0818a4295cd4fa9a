"""Alerts on the server's own memory: rules over its samples, delivered to log, commands and webhooks, and counted."""

from __future__ import annotations

import asyncio
import os
import time
from types import TracebackType
from typing import Self

from flatwater.bounded import Ledger
from flatwater.memory import procfs
from flatwater.memory.alert import Alerts, AlertStatistics, Observation, parse
from flatwater.memory.alert_delivery import Delivery, sink
from flatwater.server.status import Sampler
from flatwater.settings.model import AlertSettings

SOURCE = "server"
_MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Alarm:
    """``async with``; its task ``run`` looks every ``every_s``. Raises RuleError and SinkError for wrong settings."""

    def __init__(self, settings: AlertSettings, sampler: Sampler, every_s: float, *, ledger: Ledger) -> None:
        self._alerts = Alerts([parse(rule) for rule in settings.rules], name="server alerts")
        self._delivery = Delivery([sink(text) for text in settings.to])
        self._sampler = sampler
        self._every_s = every_s
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
        now, memory = time.monotonic(), self._sampler.memory()
        values = {"rss": memory.rss_bytes, "vms": memory.vms_bytes, "threads": memory.threads, "fds": memory.fds}
        values |= {
            name: value for name, value in (("pss", memory.pss_bytes), ("uss", memory.uss_bytes)) if value is not None
        }
        limit = memory.limit_bytes or _MACHINE
        figures = {name: float(value) for name, value in values.items()}
        batch = [Observation(source=SOURCE, label="flatwater serve", at=now, values=figures, limit=float(limit))]
        group = procfs.cgroup()
        if group is not None:
            kills = {"oom_kills": float(group.oom_kills)}
            batch.append(Observation(source=group.path, label=f"control group {group.path}", at=now, values=kills))
        for event in self._alerts.observe(batch):
            self._delivery.send(event)

    def active(self) -> list[str]:
        """The rules that are broken now."""
        return [rule for rule, _ in self._alerts.active()]

    def statistics(self) -> AlertStatistics:
        return self._alerts.statistics()
