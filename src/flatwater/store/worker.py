"""Workers: processes that claim runs. A worker is dead when its liveness lock is free or its lease is old."""

from __future__ import annotations

import msgspec
from sqlalchemy import bindparam, delete, select

from flatwater.store import claim, schema
from flatwater.store.tx import Query, Tx

_w = schema.worker


class Worker(msgspec.Struct, frozen=True):
    id: str
    host: str
    pid: int
    started_at: float
    lease_at: float


_COLUMNS = (_w.c.id, _w.c.host, _w.c.pid, _w.c.started_at, _w.c.lease_at)
_ALL = Query(select(*_COLUMNS).order_by(_w.c.id))
_INSERT = Query(_w.insert().values({column.name: bindparam(column.name) for column in _COLUMNS}))
_DELETE = Query(delete(_w).where(_w.c.id == bindparam("worker_id")))


def page(tx: Tx) -> list[Worker]:
    """All workers, the oldest first: there are as many as processes."""
    return [Worker(*row) for row in tx.all(_ALL)]


def join(tx: Tx, row: Worker) -> None:
    """Take the liveness lock and be listed."""
    tx.dialect.liveness(tx.connection).hold(row.id)
    tx.run(_DELETE, worker_id=row.id)
    tx.run(_INSERT, **msgspec.structs.asdict(row))


def leave(tx: Tx, worker_id: str, now: float) -> list[str]:
    """Be listed no longer; what was still claimed becomes ready. Returns those runs."""
    requeued = claim.requeue_of(tx, worker_id, now)
    tx.run(_DELETE, worker_id=worker_id)
    return requeued


def let_go(tx: Tx, worker_id: str) -> None:
    """Free the liveness lock, once the leaving is durable."""
    tx.dialect.liveness(tx.connection).forget(worker_id)


def take_over(tx: Tx, own_id: str | None, now: float, lease_s: float) -> list[str]:
    """Make the runs of dead workers ready, and fence those workers by removing their rows. Returns the runs."""
    liveness = tx.dialect.liveness(tx.connection)
    requeued: list[str] = []
    for worker in page(tx):
        if worker.id == own_id or not (now - worker.lease_at > lease_s or liveness.dead(worker.id)):
            continue
        requeued += leave(tx, worker.id, now)
        liveness.forget(worker.id)
    return requeued
