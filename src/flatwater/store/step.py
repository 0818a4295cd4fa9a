"""Steps: what each block of a run did. One row per block path; loops add their index to the path."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, or_, select
from sqlalchemy import delete as delete_rows

from flatwater.store import schema
from flatwater.store.dialect import members
from flatwater.store.state import State
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import Query, Tx


class Step(msgspec.Struct, frozen=True):
    """`progress` is what a flow block has decided (branch taken, loop index), `order_id` the outside order."""

    path: str
    block_id: int
    name: str
    type: str
    state: str
    attempt: int
    started_at: float | None
    ended_at: float | None
    outputs: str | None
    progress: str | None
    order_id: str | None
    error: str | None


_s = schema.step
_FIELDS = Step.__struct_fields__
_COLUMNS = [_s.c[name] for name in _FIELDS]
PUT = Statement("step.put", _s, "upsert", ("run_id", *_FIELDS), key=("run_id", "path"), large=(9, 10, 12))
# Below a path come its children after "/" and its turns after "[": two ranges, with nothing else between. The union
# is inside, so that each range is sought in the primary key.
DELETE = Statement(
    "step.delete",
    _s,
    "text",
    ("run_id", "slash", "zero", "bracket", "backslash"),
    sql="DELETE FROM step WHERE (run_id, path) IN (SELECT s.run_id, s.path FROM ("
    "SELECT a.run_id, a.slash AS low, a.zero AS high FROM {rows} AS a"
    " UNION ALL SELECT b.run_id, b.bracket, b.backslash FROM {rows} AS b"
    ") AS v CROSS JOIN step AS s WHERE s.run_id = v.run_id AND s.path > v.low AND s.path < v.high)",
)
_LOAD = Query(select(_s.c.run_id, *_COLUMNS).where(members(_s.c.run_id, "ids")).order_by(_s.c.run_id, _s.c.path))
_FORGET_FAILED = Query(
    delete_rows(_s).where(
        _s.c.run_id == bindparam("owner_id"), or_(_s.c.state == State.FAILED.value, _s.c.state == State.CANCELED.value)
    )
)
_PAGE = Query(
    select(*_COLUMNS)
    .where(_s.c.run_id == bindparam("owner_id"), _s.c.path > bindparam("after"))
    .order_by(_s.c.path)
    .limit(bindparam("count"))
)


def put(
    run_id: str,
    path: str,
    block_id: int,
    name: str,
    type: str,
    state: str,
    attempt: int,
    started_at: float | None,
    ended_at: float | None,
    outputs: str | None = None,
    progress: str | None = None,
    order_id: str | None = None,
    error: str | None = None,
) -> Op:
    """Insert the step, or replace all of it."""
    return PUT, (
        run_id, path, block_id, name, type, state, attempt, started_at, ended_at, outputs, progress, order_id, error,
    )  # fmt: skip


def delete(run_id: str, prefix: str) -> Op:
    """Forget all steps below a path (its children and, for a loop, its turns); the path's own step stays."""
    return DELETE, (run_id, prefix + "/", prefix + "0", prefix + "[", prefix + "\\")


def forget_failed(tx: Tx, run_id: str) -> None:
    """Forget the steps that failed or were canceled, so that the run's next attempt starts with them."""
    tx.run(_FORGET_FAILED, owner_id=run_id)


def load(tx: Tx, run_ids: Sequence[str]) -> dict[str, list[Step]]:
    """The steps of many runs in one query, in order of path; every id has its list."""
    found: dict[str, list[Step]] = {run_id: [] for run_id in run_ids}
    for row in tx.all(_LOAD, ids=list(run_ids)):
        found[row[0]].append(Step(*row[1:]))
    return found


def page(tx: Tx, run_id: str, after: str = "", limit: int = 1000) -> list[Step]:
    """Steps in order of path, those after the path `after`."""
    return [Step(*row) for row in tx.all(_PAGE, owner_id=run_id, after=after, count=limit)]
