"""Triggers: what starts runs by itself, at intervals, by cron, or on an event. When is the engine's matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec
from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy import delete as sql_delete

from flatwater.errors import NotFoundError
from flatwater.store import run, schema
from flatwater.store.commit import refusable
from flatwater.store.run_record import NewRun
from flatwater.store.statement import Statement
from flatwater.store.tx import Query, Tx


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is interval (`spec` = seconds), cron, event (`spec` = its name) or a user's. `inputs` is JSON text. It
    fires only while fewer than `max_pending` of its runs have not ended."""

    id: str
    definition_id: str
    kind: str
    spec: str
    inputs: str | None = None
    priority: int = 0
    enabled: bool = True
    next_at: float | None = None
    last_run_id: str | None = None
    last_at: float | None = None
    max_pending: int = 1


Told: TypeAlias = Literal["started", "known", "full", "gone"]

_t, _r = schema.trigger, schema.run
_FIELDS = Trigger.__struct_fields__
_COLUMNS = [_t.c[name] for name in _FIELDS]
SAVE = Statement("trigger.save", _t, "upsert", _FIELDS, key=("id",))
_GET = Query(select(*_COLUMNS).where(_t.c.id == bindparam("trigger_id")))
_DELETE = Query(sql_delete(_t).where(_t.c.id == bindparam("trigger_id")))
_DUE = Query(
    select(*_COLUMNS)
    .where(_t.c.enabled == 1, _t.c.next_at <= bindparam("now"))
    .order_by(_t.c.next_at)
    .limit(bindparam("count"))
)
_OF_EVENT = Query(
    select(*_COLUMNS).where(_t.c.kind == "event", _t.c.spec == bindparam("name"), _t.c.enabled == 1).order_by(_t.c.id)
)
_NEXT = Query(select(func.min(_t.c.next_at)).where(_t.c.enabled == 1))
_FIRED = (
    update(_t)
    .where(_t.c.id == bindparam("trigger_id"), _t.c.enabled == 1)
    .values(
        last_run_id=func.coalesce(bindparam("run_id"), _t.c.last_run_id), last_at=bindparam("at"),
        next_at=bindparam("new_next_at"),
    )
)  # fmt: skip
_FIRED_BY_EVENT = Query(_FIRED.where(_t.c.next_at.is_(None)))
_FIRED_BY_TIME = Query(_FIRED.where(_t.c.next_at == bindparam("seen")))
_PENDING = Query(
    select(func.count()).select_from(
        select(_r.c.id)
        .where(_r.c.trigger_id == bindparam("trigger_id"), _r.c.ended_at.is_(None))
        .limit(bindparam("cap"))
        .subquery()
    )
)


@refusable
def save(tx: Tx, trigger: Trigger) -> None:
    """Insert or replace."""
    row = [int(item) if isinstance(item, bool) else item for item in msgspec.structs.astuple(trigger)]
    tx.apply((SAVE, tuple(row)))


def get(tx: Tx, trigger_id: str) -> Trigger:
    """Raises NotFoundError."""
    row = tx.first(_GET, trigger_id=trigger_id)
    if row is None:
        raise NotFoundError(f"trigger {trigger_id!r}")
    return _trigger(row)


def page(tx: Tx, after: str = "", limit: int = 50, definition: str | None = None) -> list[Trigger]:
    """Triggers in order of id, those after the id `after`."""
    query = select(*_COLUMNS).where(_t.c.id > after).order_by(_t.c.id).limit(limit)
    if definition is not None:
        query = query.where(_t.c.definition_id == definition)
    return [_trigger(row) for row in tx.all(query)]


def delete(tx: Tx, trigger_id: str) -> None:
    """Raises NotFoundError."""
    if tx.run(_DELETE, trigger_id=trigger_id) == 0:
        raise NotFoundError(f"trigger {trigger_id!r}")


def due(tx: Tx, now: float, limit: int = 100) -> list[Trigger]:
    """Those whose time has come, the most overdue first: `fire` each."""
    return [_trigger(row) for row in tx.all(_DUE, now=now, count=limit)]


def of_event(tx: Tx, name: str) -> list[Trigger]:
    """The enabled triggers that this event fires."""
    return [_trigger(row) for row in tx.all(_OF_EVENT, name=name)]


def of_kinds(tx: Tx, kinds: Sequence[str], limit: int) -> list[Trigger]:
    """The enabled triggers of these kinds, by id."""
    wanted = or_(*(_t.c.kind == kind for kind in kinds))
    query = select(*_COLUMNS).where(wanted, _t.c.enabled == 1).order_by(_t.c.id).limit(limit)
    return [_trigger(row) for row in tx.all(query)]


def next_at(tx: Tx) -> float | None:
    """When the next trigger becomes due."""
    at: float | None = tx.value(_NEXT)
    return at


@refusable
def fire(tx: Tx, trigger: Trigger, new: NewRun | None, at: float, next_at: float | None) -> bool:
    """Fire a trigger at `at`, as it was read; its time moves on to `next_at`. Returns whether `new` has been stored.

    It is not when `max_pending` of the trigger's runs have not ended; None: there is nothing to start. And nothing at
    all happens when the trigger is not as it was read: of several processes that saw it due, one fires it.
    """
    if new is not None and pending(tx, trigger.id, trigger.max_pending) >= trigger.max_pending:
        new = None
    given = {"trigger_id": trigger.id, "run_id": new.id if new is not None else None, "at": at, "new_next_at": next_at}
    if trigger.next_at is None:
        fired = tx.run(_FIRED_BY_EVENT, **given)
    else:
        fired = tx.run(_FIRED_BY_TIME, seen=trigger.next_at, **given)
    if not fired or new is None:
        return False
    tx.apply(run.insert(new))
    return True


@refusable
def tell(tx: Tx, trigger: Trigger, new: NewRun, at: float) -> Told:
    """Start the run of something that a source has told, unless its `out_order_no` has started one already.

    "full": `max_pending` of the trigger's runs have not ended; "gone": it is no longer there, or rests. Then, and for
    what is "known", nothing has changed.
    """
    if new.out_order_no is not None and run.named(tx, new.out_order_no) is not None:
        return "known"
    if pending(tx, trigger.id, trigger.max_pending) >= trigger.max_pending:
        return "full"
    if not tx.run(_FIRED_BY_EVENT, trigger_id=trigger.id, run_id=new.id, at=at, new_next_at=None):
        return "gone"
    tx.apply(run.insert(new))
    return "started"


def pending(tx: Tx, trigger_id: str, cap: int = 1000) -> int:
    """How many of its runs have not ended, counting no further than `cap`."""
    return int(tx.value(_PENDING, trigger_id=trigger_id, cap=cap))


def _trigger(row: tuple[object, ...]) -> Trigger:
    fields = dict(zip(_FIELDS, row, strict=True))
    fields["enabled"] = bool(fields["enabled"])
    return Trigger(**fields)  # type: ignore[arg-type]
