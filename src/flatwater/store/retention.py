"""Forgetting: ended runs with all that belongs to them, contents that nothing refers to, old changes and events.

A call removes a small batch, so that the writer serves others between two; call again until `done`.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Table, bindparam, delete, exists, func, or_, select

from flatwater.store import schema
from flatwater.store.dialect import members
from flatwater.store.tx import Query, Tx

_r, _n, _d = schema.run, schema.snapshot, schema.definition


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: ended runs no older than `max_age_s` and no more than `max_runs`; changes of sites and events no
    older than `max_age_s` and no more than `max_site_changes` and `max_events`; contents that nothing refers to for
    `unused_s` (somebody may be about to use them)."""

    max_age_s: float = 30 * 86_400.0
    max_runs: int = 100_000
    max_site_changes: int = 100_000
    max_events: int = 100_000
    unused_s: float = 3600.0


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of each went. `done`: nothing more is due now."""

    runs: int
    contents: int
    site_changes: int
    events: int
    done: bool


_parent = _r.alias("parent")
_CUTOFF = Query(
    select(_r.c.ended_at)
    .where(_r.c.ended_at.is_not(None))
    .order_by(_r.c.ended_at.desc())
    .limit(1)
    .offset(bindparam("skip"))
)
# A run that still holds sites stays as their owner; a child stays while its parent may look at it.
_OLD = Query(
    select(_r.c.id)
    .select_from(_r.outerjoin(_parent, _parent.c.id == _r.c.parent_id))
    .where(
        _r.c.ended_at.is_not(None),
        _r.c.ended_at <= bindparam("cutoff"),
        _r.c.locked == 0,
        or_(_parent.c.id.is_(None), _parent.c.ended_at.is_not(None)),
    )
    .order_by(_r.c.ended_at)
    .limit(bindparam("count"))
)
_OF_RUN = [
    Query(delete(table).where(members(table.c.run_id, "ids")))
    for table in (schema.step, schema.variable, schema.waiter, schema.log)
]
_RUNS = Query(delete(_r).where(members(_r.c.id, "ids")))
_UNUSED = Query(
    select(_n.c.hash)
    .where(
        _n.c.created_at < bindparam("before"),
        ~exists().where(_r.c.hash == _n.c.hash),
        ~exists().where(_d.c.hash == _n.c.hash),
    )
    .limit(bindparam("count"))
)
_CONTENTS = Query(delete(_n).where(members(_n.c.hash, "ids")))


class _Journal:
    """A table with a rising id and a time, pruned from its old end."""

    def __init__(self, table: Table) -> None:
        self._newest = Query(select(func.max(table.c.id)))
        self._aged = Query(
            select(table.c.id).where(table.c.at < bindparam("before")).order_by(table.c.at.desc()).limit(1)
        )
        self._oldest = Query(
            select(table.c.id).where(table.c.id <= bindparam("last")).order_by(table.c.id).limit(bindparam("count"))
        )
        self._delete = Query(delete(table).where(table.c.id <= bindparam("last")))

    def prune(self, tx: Tx, before: float, keep: int, limit: int) -> int:
        last = max(tx.value(self._aged, before=before) or 0, (tx.value(self._newest) or 0) - keep)
        oldest = tx.all(self._oldest, last=last, count=limit)
        return tx.run(self._delete, last=oldest[-1][0]) if oldest else 0


_CHANGES, _EVENTS = _Journal(schema.site_change), _Journal(schema.event)


def prune(tx: Tx, keep: Keep, now: float, limit: int = 200) -> Pruned:
    """Remove at most `limit` runs with their steps, variables and log lines, and as many rows of each other kind."""
    runs = _prune_runs(tx, keep, now, limit)
    contents = _prune_contents(tx, now - keep.unused_s, limit) if runs < limit else 0
    site_changes = _CHANGES.prune(tx, now - keep.max_age_s, keep.max_site_changes, limit)
    events = _EVENTS.prune(tx, now - keep.max_age_s, keep.max_events, limit)
    done = max(runs, contents, site_changes, events) < limit
    return Pruned(runs=runs, contents=contents, site_changes=site_changes, events=events, done=done)


def _prune_runs(tx: Tx, keep: Keep, now: float, limit: int) -> int:
    surplus = tx.value(_CUTOFF, skip=keep.max_runs)
    cutoff = max(now - keep.max_age_s, float("-inf") if surplus is None else surplus)
    ids = [row[0] for row in tx.all(_OLD, cutoff=cutoff, count=limit)]
    if ids:
        for query in _OF_RUN:
            tx.run(query, ids=ids)
        tx.run(_RUNS, ids=ids)
    return len(ids)


def _prune_contents(tx: Tx, before: float, limit: int) -> int:
    unused = [row[0] for row in tx.all(_UNUSED, before=before, count=limit)]
    return tx.run(_CONTENTS, ids=unused) if unused else 0
