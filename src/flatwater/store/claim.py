"""The queue of runs: claim, promote what is due, give back what a dead worker held."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, bindparam, func, literal_column, select, update

from flatwater.store import schema
from flatwater.store.dialect import members
from flatwater.store.run_record import Claimed
from flatwater.store.state import State
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import Query, Tx

_r = schema.run
READY: ColumnElement[str] = literal_column("'ready'")  # not parameters: partial indexes want constants
DUE: ColumnElement[str] = literal_column("'due'")
_COLUMNS = [_r.c[name] for name in Claimed.__struct_fields__]
_STARTED = Claimed.__struct_fields__.index("started_at")
_EPOCH = Claimed.__struct_fields__.index("epoch")
_LOCKED = Claimed.__struct_fields__.index("locked")
WAKE = Statement(
    "run.wake", _r, "update", ("id",), key=("id",),
    given="run.state = 'WAITING' AND run.worker IS NULL",
    extra={"state": "'QUEUED'", "queue": "'ready'", "due_at": "NULL"},
)  # fmt: skip

_READY = Query(select(*_COLUMNS).where(_r.c.queue == READY).order_by(_r.c.rank, _r.c.id).limit(bindparam("count")))
_THIS = Query(select(*_COLUMNS).where(_r.c.id == bindparam("run_id"), _r.c.queue == READY))
_CLAIM = Query(
    update(_r)
    .where(members(_r.c.id, "ids"))
    .values(
        state=State.RUNNING.value,
        queue=None,
        due_at=None,
        wait=None,
        worker=bindparam("new_worker"),
        epoch=_r.c.epoch + 1,
        started_at=func.coalesce(_r.c.started_at, bindparam("now")),
    )
)
_DUE = Query(
    select(_r.c.id)
    .where(_r.c.queue == DUE, _r.c.due_at <= bindparam("now"))
    .order_by(_r.c.due_at)
    .limit(bindparam("count"))
)
_PROMOTE = Query(update(_r).where(members(_r.c.id, "ids")).values(queue=READY, state=State.QUEUED.value, due_at=None))
_NEXT_DUE = Query(select(func.min(_r.c.due_at)).where(_r.c.queue == DUE))
_OWNED = Query(select(_r.c.id, _r.c.epoch).where(_r.c.worker == bindparam("worker_id")).order_by(_r.c.id))
_REQUEUE = Query(
    update(_r)
    .where(members(_r.c.id, "ids"))
    .values(queue=READY, state=State.QUEUED.value, worker=None, due_at=None, wait=None)
)
_READY_COUNT = Query(
    select(func.count()).select_from(select(_r.c.id).where(_r.c.queue == READY).limit(bindparam("cap")).subquery())
)


def claim(tx: Tx, limit: int, worker: str, now: float, only: str | None = None) -> list[Claimed]:
    """Take up to `limit` ready runs in the order of their rank, then of their arrival; or `only` this one."""
    rows = tx.all(_READY, count=limit) if only is None else tx.all(_THIS, run_id=only)
    if not rows:
        return []
    tx.run(_CLAIM, ids=[row[0] for row in rows], new_worker=worker, now=now)
    return [_claimed(list(row), now) for row in rows]


def _claimed(row: list[object], now: float) -> Claimed:
    row[_EPOCH] = int(str(row[_EPOCH])) + 1
    row[_STARTED] = now if row[_STARTED] is None else row[_STARTED]
    row[_LOCKED] = bool(row[_LOCKED])
    return Claimed(*row)  # type: ignore[arg-type]


def promote_due(tx: Tx, now: float, limit: int) -> int:
    """Make runs whose time has come ready, the most overdue first; returns how many."""
    ids = [row[0] for row in tx.all(_DUE, now=now, count=limit)]
    return tx.run(_PROMOTE, ids=ids) if ids else 0


def next_due(tx: Tx) -> float | None:
    """When the next run becomes due, in seconds since the epoch."""
    due_at: float | None = tx.value(_NEXT_DUE)
    return due_at


def ready_count(tx: Tx, cap: int) -> int:
    """How many runs are ready, counting no further than `cap`."""
    return int(tx.value(_READY_COUNT, cap=cap))


def owned(tx: Tx, worker: str) -> list[tuple[str, int]]:
    """The runs that a worker holds, with their epochs."""
    return [(run_id, epoch) for run_id, epoch in tx.all(_OWNED, worker_id=worker)]


def requeue_of(tx: Tx, worker: str, now: float) -> list[str]:
    """Make all runs of a worker ready again, in their old places; returns their ids."""
    return requeue(tx, worker, owned(tx, worker))


def requeue(tx: Tx, worker: str, held: Sequence[tuple[str, int]]) -> list[str]:
    """Make those of these runs ready that the worker still holds in these epochs; returns their ids."""
    wanted = set(held)
    ids = [run_id for run_id, epoch in owned(tx, worker) if (run_id, epoch) in wanted]
    if ids:
        tx.run(_REQUEUE, ids=ids)
    return ids


def wake(run_id: str) -> Op:
    """A parked WAITING run becomes ready; others stay as they are."""
    return WAKE, (run_id,)
