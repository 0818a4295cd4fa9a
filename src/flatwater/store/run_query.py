"""Reading runs. Lists go by key, newest first, so that a page costs the same at any depth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, bindparam, func, select, union_all

from flatwater.errors import NotFoundError
from flatwater.store import ident, schema
from flatwater.store.dialect import members
from flatwater.store.run_record import Page, RunFilter, RunRow, RunSummary
from flatwater.store.state import RUN_STATES, State
from flatwater.store.tx import Query, Tx

_r = schema.run
_ROW = [_r.c[name] for name in RunRow.__struct_fields__]
_SUMMARY = [_r.c[name] for name in RunSummary.__struct_fields__]
_LOCKED = RunRow.__struct_fields__.index("locked")
_GET = Query(select(*_ROW).where(_r.c.id == bindparam("run_id")))
_FIND = Query(select(_r.c.id).where(_r.c.out_order_no == bindparam("out_order_no")))
_STATES = Query(select(_r.c.id, _r.c.state).where(members(_r.c.id, "ids")))
_REQUESTS = Query(
    select(_r.c.id, _r.c.request)
    .where(_r.c.request.is_not(None), _r.c.worker == bindparam("worker_id"))
    .order_by(_r.c.id)
)
_CHILDREN = Query(select(*_SUMMARY).where(_r.c.parent_id == bindparam("parent_id")).order_by(_r.c.id))
_COUNT_SOME = Query(
    select(func.count()).select_from(
        select(_r.c.id).where(_r.c.state == bindparam("state")).limit(bindparam("cap")).subquery()
    )
)
_COUNT = Query(select(_r.c.state, func.count()).group_by(_r.c.state))


def get(tx: Tx, run_id: str) -> RunRow:
    """Raises NotFoundError."""
    row = tx.first(_GET, run_id=run_id)
    if row is None:
        raise NotFoundError(f"run {run_id}")
    fields = list(row)
    fields[_LOCKED] = bool(fields[_LOCKED])
    return RunRow(*fields)


def find(tx: Tx, out_order_no: str) -> str | None:
    """The run that has this key."""
    run_id: str | None = tx.value(_FIND, out_order_no=out_order_no)
    return run_id


def states(tx: Tx, ids: Sequence[str]) -> dict[str, State]:
    """Ids that are not stored are absent."""
    return {run_id: State(state) for run_id, state in tx.all(_STATES, ids=list(ids))}


def requests(tx: Tx, worker: str) -> list[tuple[str, str]]:
    """(run id, "cancel" or "pause") of all runs in a worker's memory that were asked to: one query for all."""
    return [(run_id, what) for run_id, what in tx.all(_REQUESTS, worker_id=worker)]


def children(tx: Tx, run_id: str) -> list[RunSummary]:
    """The runs that blocks of this run started, in order of id."""
    return [RunSummary(*row) for row in tx.all(_CHILDREN, parent_id=run_id)]


def count(tx: Tx, cap: int | None = None) -> dict[State, int]:
    """Runs by state. It reads an index of all runs unless `cap` says how far to count each state."""
    if cap is None:
        return {State(state): number for state, number in tx.all(_COUNT)}
    counts = {state: int(tx.value(_COUNT_SOME, state=state.value, cap=cap)) for state in RUN_STATES}
    return {state: number for state, number in counts.items() if number}


def page(tx: Tx, filter: RunFilter, after: str | None = None, limit: int = 50) -> Page:
    """Runs that pass the filter, newest first, those after the cursor `after` (the `next` of the page before)."""
    given = {name: value for name, value in _given(filter, after).items() if value is not None}
    states = tuple(dict.fromkeys(filter.states or _all_states(filter)))
    shown = {f"state_{number}": state for number, state in enumerate(states)}
    rows = tx.all(_page_query(frozenset(given), len(states)), **given, **shown, count=limit + 1)
    items = [RunSummary(*row) for row in rows[:limit]]
    return Page(items, items[-1].id if len(rows) > limit else None)


def _given(filter: RunFilter, after: str | None) -> dict[str, str | None]:
    return {
        "definition_id": filter.definition,
        "label": filter.label,
        "parent_id": filter.parent,
        "trigger_id": filter.trigger,
        "out_order_no": filter.out_order_no,
        "after": after,
        "since": None if filter.since is None else ident.lower_bound(filter.since),
        "until": None if filter.until is None else ident.lower_bound(filter.until),
    }


def _all_states(filter: RunFilter) -> tuple[State, ...]:
    """The indexes by definition and by label go on with the state."""
    return RUN_STATES if filter.definition is not None or filter.label is not None else ()


@lru_cache(maxsize=64)
def _page_query(given: frozenset[str], states: int) -> Query:
    """One statement per shape of filter: compiling costs more than running it."""
    if states < 2:
        return Query(_part(given, "state_0" if states else None))
    # One ordered scan of an index per state, merged: an IN list would sort everything that matches.
    parts = [_part(given, f"state_{number}").subquery() for number in range(states)]
    merged = union_all(*map(select, parts)).subquery()
    return Query(select(merged).order_by(merged.c.id.desc()).limit(bindparam("count")))


def _part(given: frozenset[str], state: str | None) -> Select[tuple[Any, ...]]:
    bounds = {"after": _r.c.id < bindparam("after"), "since": _r.c.id >= bindparam("since"),
              "until": _r.c.id < bindparam("until")}  # fmt: skip
    query = select(*_SUMMARY).order_by(_r.c.id.desc()).limit(bindparam("count"))
    for name in sorted(given):
        query = query.where(bounds[name] if name in bounds else _r.c[name] == bindparam(name))
    return query if state is None else query.where(_r.c.state == bindparam(state))
