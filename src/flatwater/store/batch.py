"""One batch: many puts and calls in one transaction, with as few executions as their order allows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from flatwater.errors import ConflictError, FlatwaterError
from flatwater.store.commit import Call, Commit, as_error
from flatwater.store.dialect import Dialect, DisconnectedError, Fault
from flatwater.store.statement import Op, Row, Statement
from flatwater.store.tx import Tx

_OF_ITEM = (Fault.REFUSED, Fault.UNIQUE)


def grouped(ops: Iterable[Op]) -> list[tuple[Statement, list[Row]]]:
    """Gather rows by statement, keeping the order among the rows of one owner (a row's first item).

    A row joins the earliest group of its statement that does not precede its owner's latest row; so the usual life of
    a run (insert, steps, end) makes one group per statement however many runs are interleaved.
    """
    groups: list[tuple[Statement, list[Row]]] = []
    places: dict[Statement, list[int]] = {}
    latest: dict[Any, int] = {}
    for statement, row in ops:
        owner = row[0]
        after = latest.get(owner, 0)
        mine = places.get(statement)
        if mine is None:
            mine = places[statement] = []
        for place in mine:
            if place >= after:
                groups[place][1].append(row)
                break
        else:
            place = len(groups)
            groups.append((statement, [row]))
            mine.append(place)
        latest[owner] = place
    return groups


def apply_merged(tx: Tx, items: Sequence[Commit], until: float) -> int:
    """Puts merged, calls between them in their order; returns how many items are done.

    After `time.perf_counter()` passes `until` no further call is begun, so that a batch of many calls stays short.

    Raises:
        Exception: a put failed, and which is unknown: roll back and use `apply_singly`.
    """
    ops: list[Op] = []
    called = False
    for done, item in enumerate(items):
        if isinstance(item, Call):
            _flush(tx, ops)
            if called and time.perf_counter() > until:
                return done
            _guarded(tx, item)
            called = True
        else:
            ops.extend(item.ops)
    _flush(tx, ops)
    return len(items)


def apply_singly(tx: Tx, items: Sequence[Commit], until: float) -> int:
    """Each put and call in a savepoint of its own, so that one that fails fails alone; returns how many are done."""
    for done, item in enumerate(items):
        if done and time.perf_counter() > until:
            return done
        _guarded(tx, item)
    return len(items)


def of_item(dialect: Dialect, error: Exception) -> bool:
    """Whether the error is a matter of one put or call; otherwise the database itself is in trouble."""
    if isinstance(error, DisconnectedError):
        return False
    return isinstance(error, FlatwaterError) or dialect.fault(error) in _OF_ITEM


def _flush(tx: Tx, ops: list[Op]) -> None:
    for statement, rows in grouped(ops):
        tx.apply_rows(statement, rows)
    ops.clear()


def _guarded(tx: Tx, item: Commit) -> None:
    item.error = None
    try:
        with tx.savepoint():
            item.perform(tx)
    except Exception as error:
        if not of_item(tx.dialect, error):
            raise
        item.error = _refusal(tx.dialect, error, item)


def _refusal(dialect: Dialect, error: Exception, item: Commit) -> Exception:
    names = ", ".join(dict.fromkeys(statement.name for statement, _ in item.ops)) or "call"
    if not isinstance(error, FlatwaterError) and dialect.fault(error) is Fault.UNIQUE:
        return ConflictError(f"{names}: {error}", hint="the name or number is taken already")
    return as_error(error, names)
