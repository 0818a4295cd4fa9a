"""What handlers work with: the parts that the application has opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatwater.bounded import Ledger, TaskGroup
    from flatwater.engine.engine import Engine
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
    sampler: Sampler
    boot: str
    started_at: float
    token_required: bool
    draining: bool = field(default=False)
