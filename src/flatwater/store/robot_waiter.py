"""Those who wait for robots, and those who have one.

Three sorts of waiter rows: kind "robot" with key `SELECT` waits for any robot that its `want` describes; kind "robot"
with an order's id as key waits for the end of that order; kind "hold" waits for nothing but says that the block at its
path has the robot of its key. A hold goes with its block or its run like every waiter: what is held without one is to
be given back.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec.structs import astuple, replace
from sqlalchemy import Double, String, bindparam, select, tuple_

from flatwater.store import schema
from flatwater.store import waiter as waiters
from flatwater.store.statement import Op
from flatwater.store.tx import Query, Tx
from flatwater.store.waiter import Grant, Waiter

ROBOT = "robot"
HOLD = "hold"
SELECT = "select"
"""Order ids are upper case and digits, so this is none."""

Place: TypeAlias = tuple[float, float, str, str]
"""Where a waiter stands in its queue: (rank, since, run id, path)."""
FIRST: Place = (float("-inf"), 0.0, "", "")

_w = schema.waiter
_columns = [_w.c[name] for name in Waiter.__struct_fields__]
_order = (_w.c.rank, _w.c.since, _w.c.run_id, _w.c.path)
_RANK = bindparam("after_rank", type_=Double)
_QUEUE = Query(
    select(*_columns)
    .where(
        _w.c.kind == ROBOT,
        _w.c.key == SELECT,
        _w.c.granted.is_(None),
        _w.c.rank >= _RANK,
        tuple_(*_order)
        > tuple_(
            _RANK,
            bindparam("after_since", type_=Double),
            bindparam("after_run", type_=String),
            bindparam("after_path", type_=String),
        ),
    )
    .order_by(*_order)
    .limit(bindparam("count"))
)
_KEYS = (
    select(*_columns)
    .where(_w.c.kind == bindparam("want_kind"), _w.c.granted.is_(None))
    .where(_w.c.key > bindparam("after_key"))
    .order_by(_w.c.key)
    .limit(bindparam("count"))
)
_HOLDS = Query(_KEYS)
_ORDERS = Query(_KEYS.where(_w.c.key < "a"))


def queue(tx: Tx, after: Place, limit: int) -> list[Waiter]:
    """The next who wait for a robot, behind ``after``, in the order in which they are to be served."""
    rank, since, run_id, path = after
    rank = max(rank, -1e300)  # infinity is no number in JSON and in some databases
    rows = tx.all(_QUEUE, after_rank=rank, after_since=since, after_run=run_id, after_path=path, count=limit)
    return [Waiter(*row) for row in rows]


def orders(tx: Tx, after: str, limit: int) -> list[Waiter]:
    """Those who wait for the end of an order, by order id above ``after``."""
    return [Waiter(*row) for row in tx.all(_ORDERS, want_kind=ROBOT, after_key=after, count=limit)]


def holds(tx: Tx, after: str, limit: int) -> list[Waiter]:
    """Those who have a robot, by robot id above ``after``."""
    return [Waiter(*row) for row in tx.all(_HOLDS, want_kind=HOLD, after_key=after, count=limit)]


def put(waiter: Waiter) -> Op:
    """Wait, from now on ungranted."""
    return waiters.PUT, astuple(replace(waiter, granted=None))


def hold(waiter: Waiter, robot_id: str) -> Op:
    """What ``waiter`` waited for is there: the same row now says that its block has the robot."""
    return put(replace(waiter, kind=HOLD, key=robot_id, reason=f"has robot {robot_id}", want=None))


def serve(tx: Tx, run_id: str, path: str, granted: str) -> list[Grant]:
    """Grant a robot to one who waits for one; nothing when it does not wait any more, or has been served."""
    waiter = waiters.get(tx, run_id, path)
    if waiter is None or waiter.granted is not None or (waiter.kind, waiter.key) != (ROBOT, SELECT):
        return []
    return waiters.give(tx, [(run_id, path, granted)])


def settle(tx: Tx, ended: list[tuple[str, str]]) -> list[Grant]:
    """Grant the ends of orders, (id, JSON text), to those who wait for them."""
    return [grant for order_id, text in ended for grant in waiters.grant(tx, ROBOT, order_id, text)]
