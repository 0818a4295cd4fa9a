"""Alerts on the server's own memory: :class:`flatwater.memory.alarm.Alarm` over what its sampler sees."""

from __future__ import annotations

from flatwater.bounded import Ledger
from flatwater.gateway import Gateway
from flatwater.memory.alarm import Alarm, Figures
from flatwater.server.status import Sampler
from flatwater.settings.model import AlertSettings


def alarm(
    settings: AlertSettings, sampler: Sampler, gateway: Gateway | None, every_s: float, *, ledger: Ledger
) -> Alarm:
    """The server's, with the level of its ``gateway``'s overload. Raises RuleError and SinkError for wrong settings."""
    overload = gateway.overload if gateway is not None else None

    def read() -> tuple[Figures, int | None]:
        memory = sampler.memory()
        figures: Figures = {
            "rss": memory.rss_bytes,
            "vms": memory.vms_bytes,
            "pss": memory.pss_bytes,
            "uss": memory.uss_bytes,
            "threads": memory.threads,
            "fds": memory.fds,
            "overload": None if overload is None else int(overload.level),
        }
        return figures, memory.limit_bytes

    return Alarm(
        settings.rules,
        settings.to,
        read,
        every_s,
        source="server",
        label="flatwater serve",
        ledger=ledger,
        counts=("overload",),
    )
