"""What blocks write about their run. Trimmed per run, so a chatty loop cannot fill the disk."""

from __future__ import annotations

import msgspec
from sqlalchemy import bindparam, delete, select

from flatwater.store import schema
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import Query, Tx


class LogLine(msgspec.Struct, frozen=True):
    id: int
    at: float
    level: str
    path: str | None
    message: str


_l = schema.log
_COLUMNS = [_l.c[name] for name in LogLine.__struct_fields__]
ADD = Statement("log.add", _l, "insert", ("run_id", "at", "level", "path", "message"), large=(4,))
_OLDEST_KEPT = Query(
    select(_l.c.id)
    .where(_l.c.run_id == bindparam("owner_id"))
    .order_by(_l.c.id.desc())
    .limit(1)
    .offset(bindparam("skip"))
)
_TRIM = Query(delete(_l).where(_l.c.run_id == bindparam("owner_id"), _l.c.id < bindparam("oldest")))


def add(run_id: str, at: float, level: str, path: str | None, message: str) -> Op:
    """One line. Call `trim` every hundred lines or so."""
    return ADD, (run_id, at, level, path, message)


def trim(tx: Tx, run_id: str, keep: int) -> int:
    """Forget all but the newest `keep` lines of a run; returns how many went."""
    oldest = tx.value(_OLDEST_KEPT, owner_id=run_id, skip=keep - 1)
    return 0 if oldest is None else tx.run(_TRIM, owner_id=run_id, oldest=oldest)


def page(tx: Tx, run_id: str, after: int = 0, limit: int = 100) -> list[LogLine]:
    """Lines in order, those after the id `after`."""
    query = select(*_COLUMNS).where(_l.c.run_id == run_id, _l.c.id > after).order_by(_l.c.id).limit(limit)
    return [LogLine(*row) for row in tx.all(query)]
