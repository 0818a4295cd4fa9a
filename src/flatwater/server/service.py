"""What handlers work with: the parts that the application has opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flatwater.server.problem import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flatwater.bounded import Ledger, TaskGroup
    from flatwater.engine.engine import Engine
    from flatwater.gateway import Gateway
    from flatwater.memory.alarm import Alarm
    from flatwater.server.counts import Counts
    from flatwater.server.instrument import Instruments
    from flatwater.server.pulse import Pulse
    from flatwater.server.route import Route
    from flatwater.server.status import Sampler
    from flatwater.settings import Settings
    from flatwater.store import Store


@dataclass(slots=True, kw_only=True)
class Service:
    """One running server. ``boot`` names this start, ``draining`` is set when it no longer takes work."""

    settings: Settings
    ledger: Ledger
    store: Store
    engine: Engine
    tasks: TaskGroup
    streams: TaskGroup
    sampler: Sampler
    counts: Counts
    pulse: Pulse
    instruments: Instruments
    gateway: Gateway | None
    alarm: Alarm
    routes: Sequence[Route]
    boot: str
    started_at: float
    token_required: bool
    draining: bool = field(default=False)

    def refuse_when_draining(self) -> None:
        """Raises RequestError 503 once the server is leaving: somebody else should take the work."""
        if self.draining:
            hint = "ask another server, or this one after its restart"
            raise RequestError(503, "draining", "the server is stopping", hint=hint, headers={"Retry-After": "5"})
