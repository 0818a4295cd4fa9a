"""Task variables, each with the path of the block that set it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import select

from flatwater.store import schema
from flatwater.store.dialect import members
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import Query, Tx


class Variable(msgspec.Struct, frozen=True):
    """`value` is JSON text."""

    value: str
    source: str | None


_v = schema.variable
PUT = Statement("variable.put", _v, "upsert", ("run_id", "name", "value", "source"), key=("run_id", "name"), large=(2,))
_LOAD = Query(select(_v.c.run_id, _v.c.name, _v.c.value, _v.c.source).where(members(_v.c.run_id, "ids")))


def put(run_id: str, name: str, value: str, source: str | None = None) -> Op:
    """Set a variable to a JSON text."""
    return PUT, (run_id, name, value, source)


def load(tx: Tx, run_ids: Sequence[str]) -> dict[str, dict[str, Variable]]:
    """The variables of many runs in one query; every id has its dict."""
    found: dict[str, dict[str, Variable]] = {run_id: {} for run_id in run_ids}
    for run_id, name, value, source in tx.all(_LOAD, ids=list(run_ids)):
        found[run_id][name] = Variable(value, source)
    return found
