"""The work of Small Hall: which runs are open at a time, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import func, select

from flatwater.store import schema
from flatwater.store import site as sites
from flatwater.store.dialect import members
from flatwater.store.state import ENDED, RUN_STATES
from flatwater.store.tx import Query, Tx

PREFIX = "hall-"
OPEN_STATES = [state.value for state in RUN_STATES if state not in ENDED]
ROUTES = (("BUF", "LANE1"), ("BUF", "LANE2"), ("BUF", "FLOW"), ("LANE2", "FLOW"), ("BUF", "LANE1"))

_run = schema.run
_OPEN = Query(
    select(_run.c.definition_id, func.count())
    .where(members(_run.c.state, "states"), _run.c.parent_id.is_(None))
    .group_by(_run.c.definition_id)
)


class Stock(NamedTuple):
    """Open runs by definition, and what lies in the buffer for anybody."""

    open: dict[str, int]
    buffer: list[str]


def stock(tx: Tx) -> Stock:
    counts = {name: int(count) for name, count in tx.all(_OPEN, states=OPEN_STATES) if name.startswith(PREFIX)}
    free = sites.page(tx, "BUF", False, True, None, 100)
    return Stock(counts, [site.content for site in free if site.content])


class Kind(Struct, frozen=True):
    """One sort of work: at most ``most`` runs of it are open. ``inputs`` gives ``None`` when there is nothing to do."""

    definition: str
    most: int
    priority: int
    inputs: Callable[[Random, Stock, int], dict[str, Any] | None]


def _nothing_needed(chance: Random, now: Stock, number: int) -> dict[str, Any]:
    return {}


def _some_goods(chance: Random, now: Stock, number: int) -> dict[str, Any] | None:
    return {"sku": chance.choice(now.buffer)} if now.buffer else None


def _some_route(chance: Random, now: Stock, number: int) -> dict[str, Any]:
    source, target = ROUTES[number % len(ROUTES)]
    return {"from": source, "to": target}


KINDS = (
    Kind(f"{PREFIX}line-supply", 2, 3, _nothing_needed),
    Kind(f"{PREFIX}retrieve", 3, 2, _some_goods),
    Kind(f"{PREFIX}ship", 2, 1, _nothing_needed),
    Kind(f"{PREFIX}putaway", 3, 1, _nothing_needed),
    Kind(f"{PREFIX}consolidate", 2, 0, _some_route),
    Kind(f"{PREFIX}monitor", 1, 0, _nothing_needed),
)
CHARGE_CHECK = f"{PREFIX}charge-check"
"""Started by triggers, one for each robot."""
CHARGE_PRIORITY = 10
CHARGE_EVERY_S = 120.0


def missing(now: Stock, chance: Random, number: int) -> list[tuple[Kind, dict[str, Any]]]:
    """What is to be submitted so that every kind of work has as many open runs as it may."""
    found: list[tuple[Kind, dict[str, Any]]] = []
    for kind in KINDS:
        for _ in range(kind.most - now.open.get(kind.definition, 0)):
            inputs = kind.inputs(chance, now, number + len(found))
            if inputs is not None:
                found.append((kind, inputs))
    return found
