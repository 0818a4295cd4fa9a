"""Values that blocks keep across runs (CacheDataBp), bounded in entries and bytes; the longest unchanged leave."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, func, select

from flatwater.errors import LimitError
from flatwater.store import schema
from flatwater.store.commit import refusable
from flatwater.store.statement import Statement
from flatwater.store.tx import Query, Tx

_c = schema.cache
_SET = Statement("cache.set", _c, "upsert", ("key", "value", "bytes", "updated_at"), key=("key",), large=(1,))
_GET = Query(select(_c.c.value).where(_c.c.key == bindparam("name")))
_USED = Query(select(func.count(), func.coalesce(func.sum(_c.c.bytes), 0)))
_OLDEST = Query(select(_c.c.key, _c.c.bytes).order_by(_c.c.updated_at, _c.c.key).limit(bindparam("count")))
_DELETE = Query(delete(_c).where(_c.c.key == bindparam("name")))
_CLEAR = Query(delete(_c))


@refusable
def put(tx: Tx, key: str, value: str, now: float, max_entries: int, max_bytes: int) -> int:
    """Keep a JSON text; returns how many others had to leave.

    Raises:
        LimitError: the value alone is larger than `max_bytes`.
    """
    size = len(value.encode()) + len(key.encode())
    if size > max_bytes:
        raise LimitError(f"a value of {size} bytes for {key!r}", where="max_bytes", hint=f"at most {max_bytes} bytes")
    tx.apply((_SET, (key, value, size, now)))
    entries, used = map(int, tx.first(_USED) or (0, 0))
    evicted = 0
    while entries > max_entries or used > max_bytes:
        name, freed = next(row for row in tx.all(_OLDEST, count=2) if row[0] != key)
        tx.run(_DELETE, name=name)
        entries, used, evicted = entries - 1, used - int(freed), evicted + 1
    return evicted


def get(tx: Tx, key: str) -> str | None:
    """The JSON text, or None."""
    value: str | None = tx.value(_GET, name=key)
    return value


def clear(tx: Tx, key: str | None = None) -> int:
    """Forget one key, or all; returns how many went."""
    return tx.run(_CLEAR) if key is None else tx.run(_DELETE, name=key)
