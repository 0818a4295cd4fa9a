"""Events published by runs and from outside: recorded, and granted to whoever waits for their name."""

from __future__ import annotations

import msgspec
from sqlalchemy import bindparam, select

from flatwater.store import schema, trigger, waiter
from flatwater.store.trigger import Trigger
from flatwater.store.tx import Query, Tx
from flatwater.store.waiter import Grant

_e = schema.event


class Event(msgspec.Struct, frozen=True):
    """`data` is JSON text."""

    id: int
    at: float
    name: str
    data: str | None


class Published(msgspec.Struct, frozen=True):
    """`triggers` are those that this event fires: the caller submits their runs."""

    grants: list[Grant]
    triggers: list[Trigger]


_COLUMNS = [_e.c[name] for name in Event.__struct_fields__]
_INSERT = Query(_e.insert().values(at=bindparam("at"), name=bindparam("name"), data=bindparam("data")))
_PAGE = select(*_COLUMNS).order_by(_e.c.id.desc())
_LIMIT = 10_000


def publish(tx: Tx, name: str, data: str | None, now: float) -> Published:
    """Record the event, grant its data (JSON text) to all who wait for it, and name the triggers it fires."""
    tx.run(_INSERT, at=now, name=name, data=data)
    grants: list[Grant] = []
    while True:
        some = waiter.grant(tx, "event", name, data or "null", _LIMIT)
        grants += some
        if len(some) < _LIMIT:
            return Published(grants, trigger.of_event(tx, name))


def page(tx: Tx, name: str | None = None, after: int | None = None, limit: int = 50) -> list[Event]:
    """Events, newest first, those before the id `after`."""
    query = _PAGE.limit(limit)
    if name is not None:
        query = query.where(_e.c.name == name)
    if after is not None:
        query = query.where(_e.c.id < after)
    return [Event(*row) for row in tx.all(query)]
