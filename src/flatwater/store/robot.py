"""The book of the simulated fleet: its robots, and each order that it has accepted.

The fleet is an outside system that happens to keep its book in the same database; nothing else reads these tables.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy import bindparam, delete, select

from flatwater.store.dialect.clause import members
from flatwater.store.schema import robot, robot_order
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import Query, Tx


class RobotRow(Struct, frozen=True, kw_only=True):
    """One robot; ``tags``, ``groups`` and ``attrs`` are JSON text."""

    id: str
    tags: str | None = None
    groups: str | None = None
    battery: float | None = None
    station: str | None = None
    last_station: str | None = None
    state: str
    locked_run: str | None = None
    locked_path: str | None = None
    attrs: str | None = None
    updated_at: float


class OrderRow(Struct, frozen=True, kw_only=True):
    """One order; ``operation`` and ``result`` are JSON text. ``ended_at`` is None while it is open."""

    id: str
    robot_id: str
    run_id: str | None = None
    path: str | None = None
    operation: str
    state: str
    sent_at: float
    ended_at: float | None = None
    result: str | None = None


_ROBOT = RobotRow.__struct_fields__
_ORDER = OrderRow.__struct_fields__
_PUT = Statement("robot.put", robot, "upsert", _ROBOT, key=("id",))
_ORDER_PUT = Statement("robot.order_put", robot_order, "upsert", _ORDER, key=("id",), large=(5, 8))
_ROBOTS = Query(select(*(robot.c[name] for name in _ROBOT)).order_by(robot.c.id))
_ORDERS = select(*(robot_order.c[name] for name in _ORDER))
_OPEN = Query(_ORDERS.where(robot_order.c.ended_at.is_(None)).order_by(robot_order.c.sent_at, robot_order.c.id))
_ONE = Query(_ORDERS.where(robot_order.c.id == bindparam("id")))
_OLDEST = Query(
    select(robot_order.c.id)
    .where(robot_order.c.ended_at < bindparam("before"))
    .order_by(robot_order.c.ended_at)
    .limit(bindparam("most"))
)
_DELETE = Query(delete(robot_order).where(members(robot_order.c.id, "ids")))


def put(row: RobotRow) -> Op:
    """Insert or replace a robot."""
    return _PUT, _values(row)


def order_put(row: OrderRow) -> Op:
    """Insert or replace an order. Whoever accepts one looks first whether its id is known (`order`)."""
    return _ORDER_PUT, _values(row)


def load(tx: Tx) -> tuple[list[RobotRow], list[OrderRow]]:
    """All robots, and the open orders, oldest first."""
    return [RobotRow(**dict(zip(_ROBOT, row, strict=True))) for row in tx.all(_ROBOTS)], [
        _order(row) for row in tx.all(_OPEN)
    ]


def order(tx: Tx, order_id: str) -> OrderRow | None:
    row = tx.first(_ONE, id=order_id)
    return None if row is None else _order(row)


def prune(tx: Tx, before: float, limit: int) -> int:
    """Forget up to ``limit`` orders that ended before ``before``; returns how many."""
    ids = [row[0] for row in tx.all(_OLDEST, before=before, most=limit)]
    return tx.run(_DELETE, ids=ids) if ids else 0


def _order(row: tuple[Any, ...]) -> OrderRow:
    return OrderRow(**dict(zip(_ORDER, row, strict=True)))


def _values(row: Struct) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in row.__struct_fields__)
