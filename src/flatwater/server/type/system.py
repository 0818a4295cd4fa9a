"""The service: health, figures, ledger."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from flatwater.server.status import Memory


class Alive(Struct, frozen=True):
    ok: Literal[True] = True


class Check(Struct, frozen=True):
    """``ok``, and when not, why."""

    ok: bool
    detail: str = ""


class Readiness(Struct, frozen=True):
    """Whether work may be sent here. ``checks`` are ``store``, ``queue`` and ``draining``."""

    ready: bool
    checks: dict[str, Check]


class Info(Struct, frozen=True):
    version: str
    started_at: float
    database: str
    demo: bool
    token_required: bool
    gateway: bool


class Status(Struct, frozen=True):
    """``runs`` counts by state, and ``active`` (in memory), ``pending`` (queued), ``waiting`` (everything that waits).

    ``waits`` counts waiting blocks by what they wait for.
    ``capped`` says that the counts stopped at a bound. ``contexts`` are the live ones and those that outlive their run.
    """

    now: float
    uptime_s: float
    memory: Memory
    runs: dict[str, int]
    capped: bool
    waits: dict[str, int]
    contexts: dict[str, int]
    engine: dict[str, Any]
    store: dict[str, Any]
    alerts: list[str]
    rate_per_s: float


class LedgerItem(Struct, frozen=True):
    """One holder of things: how much it holds now, and its bounds."""

    name: str
    kind: str
    size: int
    bound: int
    bytes: int | None
    max_bytes: int | None
    evictions: int


class LedgerList(Struct, frozen=True):
    items: list[LedgerItem]
