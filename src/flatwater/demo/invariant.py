"""What must be true of Small Hall at any time, whatever happened: crashes, restarts, failures, cancels by the plant.

`audit` looks at one snapshot of the store and says what is wrong, in sentences; nothing when all is well. `registries`
says what a process still holds of runs when there are none.

One thing is beyond the plant's knowledge: a run that a person cancels between the robot's report and the record of it
leaves a pallet in the wrong book. Then the count of pallets is off for ever, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from time import time
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select

from flatwater.demo.world import tally_of
from flatwater.engine.fleet.book import attrs_of
from flatwater.store import robot as robots
from flatwater.store import schema
from flatwater.store import site as sites
from flatwater.store.dialect import members
from flatwater.store.state import ENDED, RUN_STATES
from flatwater.store.tx import Query, Tx

if TYPE_CHECKING:
    from flatwater.engine import Engine
    from flatwater.store.site import Site
    from flatwater.store.store import Store

MAX_CHANGES = 100_000
"""Latest changes of sites that are gone through."""

_run, _change = schema.run, schema.site_change
_OPEN = [state.value for state in RUN_STATES if state not in ENDED]
_ALIVE = Query(select(_run.c.id, _run.c.ended_at))
_OPEN_RUNS = Query(select(func.count()).select_from(_run).where(members(_run.c.state, "states")))
_WAITERS = Query(select(schema.waiter.c.run_id, schema.waiter.c.path, schema.waiter.c.kind))
_CHANGES = Query(
    select(_change.c.site_id, _change.c.change, _change.c.id).order_by(_change.c.id.desc()).limit(MAX_CHANGES)
)


async def check(store: Store, *, at_rest: bool = False, grace_s: float = 2.0) -> list[str]:
    """`audit` of the store as it is now."""
    return await store.read(audit, at_rest, grace_s)


def audit(tx: Tx, at_rest: bool = False, grace_s: float = 2.0) -> list[str]:
    """Everything that is wrong.

    ``at_rest``: nothing may be open, and every pallet must be in its place. Otherwise each run at work may have one
    pallet on its way between two books, and what an ended run held may be on its way back for ``grace_s`` seconds.
    """
    found = sites.page(tx, limit=10_000)
    ended = {row[0]: row[1] for row in tx.all(_ALIVE)}
    before = time() if at_rest else time() - grace_s
    wrong = [*_owners(tx, found), *_locks(found, ended, before), *_robots(tx, ended, before)]
    wrong += _pallets(tx, found, 0 if at_rest else len({site.locked_run for site in found if site.locked_run}))
    if at_rest:
        wrong += _rest(tx, found)
    return wrong


def _owners(tx: Tx, found: Iterable[Site]) -> Iterator[str]:
    """By the record of every change no site went to a second owner before the first had given it back."""
    owners: dict[str, str | None] = {}
    for site_id, text, number in reversed(tx.all(_CHANGES)):
        change: dict[str, Any] = msgspec.json.decode(text)
        if "locked_run" not in change:
            continue
        now, had = change["locked_run"], owners.get(site_id)
        if now is not None and had not in (None, now):
            yield f"site {site_id} went to {now} while {had} had it (change {number})"
        owners[site_id] = now
    for site in found:
        if owners.get(site.id, site.locked_run) != site.locked_run:
            yield f"site {site.id} is locked by {site.locked_run}, by its record by {owners[site.id]}"


def _locks(found: Iterable[Site], ended: dict[str, float | None], before: float) -> Iterator[str]:
    """Every lock has an owner that is alive."""
    for site in found:
        if site.locked_run is not None and _dead(site.locked_run, ended, before):
            yield f"site {site.id} is locked by run {site.locked_run}, which has ended or never was"


def _dead(run_id: str, ended: dict[str, float | None], before: float) -> bool:
    at = ended.get(run_id, 0.0)
    return at is not None and at <= before


def _robots(tx: Tx, ended: dict[str, float | None], before: float) -> Iterator[str]:
    """No robot has a dead owner, no block has two robots, no order was sent twice or has two places."""
    rows, orders = robots.load(tx)
    for row in rows:
        if row.locked_run is not None and row.updated_at <= before and _dead(row.locked_run, ended, before):
            yield f"robot {row.id} is held by run {row.locked_run}, which has ended or never was"
        attrs = attrs_of(row)
        if attrs is not None and attrs.violations:
            yield f"robot {row.id} was sent {attrs.violations} order(s) a second time"
    holders = Counter((row.locked_run, row.locked_path) for row in rows if row.locked_run is not None)
    yield from (f"block {path} of run {run} has {n} robots" for (run, path), n in holders.items() if n > 1)
    busy = Counter(order.robot_id for order in orders if order.state == "RUNNING")
    yield from (f"robot {robot} executes {n} orders at once" for robot, n in busy.items() if n > 1)


def _pallets(tx: Tx, found: Iterable[Site], slack: int) -> Iterator[str]:
    """Filled sites = those of the first day + arrived − left − carried − taken off by hand."""
    filled, tallies = sum(site.filled for site in found), [tally_of(site) for site in found]
    expected = sum(tally.initial + tally.arrived - tally.left for tally in tallies)
    attrs = [each for row in robots.load(tx)[0] if (each := attrs_of(row)) is not None]
    away = sum(each.carrying is not None for each in attrs) + sum(each.taken_off for each in attrs)
    if abs(expected - away - filled) > slack:
        yield f"{filled} sites are filled, not {expected - away} (± {slack}); {away} pallets are on robots or taken off"
    yield from (
        f"site {site.id} is empty, yet holds {site.content}" for site in found if site.content and not site.filled
    )


def _rest(tx: Tx, found: Iterable[Site]) -> Iterator[str]:
    """Nothing is open when nothing is to be done."""
    if count := tx.value(_OPEN_RUNS, states=_OPEN):
        yield f"{count} runs are open"
    yield from (f"block {path} of run {run} still waits ({kind})" for run, path, kind in tx.all(_WAITERS))
    yield from (f"site {site.id} is locked by {site.locked_run}" for site in found if site.locked_run is not None)
    rows, orders = robots.load(tx)
    yield from (f"robot {row.id} is held by {row.locked_run}" for row in rows if row.locked_run is not None)
    yield from (f"robot {row.id} carries something" for row in rows if (each := attrs_of(row)) and each.carrying)
    yield from (f"order {order.id} of robot {order.robot_id} is open" for order in orders if order.run_id is not None)


def registries(engine: Engine) -> list[str]:
    """What this process still holds of runs, though none is open."""
    statistics = engine.statistics()
    held = {
        "activations": statistics.scheduler.active,
        "contexts": statistics.contexts.live,
        "results awaited": statistics.awaited,
        "ended orders to be told": engine.services.robots.statistics().pending if engine.services.robots else 0,
    }
    return [f"{count} {name} are left" for name, count in held.items() if count]
