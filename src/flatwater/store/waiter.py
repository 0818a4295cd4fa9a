"""Waiters: one row per waiting block. A grant is written into the row, and wakes the run if it is parked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Double, String, and_, bindparam, func, literal_column, select, tuple_, update

from flatwater.errors import NotFoundError
from flatwater.store import schema
from flatwater.store.claim import READY, wake
from flatwater.store.dialect import members
from flatwater.store.run_record import Grant
from flatwater.store.site_match import compete, compete_under_key
from flatwater.store.site_record import Want
from flatwater.store.state import ENDED, State
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import Query, Tx


class Waiter(msgspec.Struct, frozen=True):
    """`kind` is one of `KINDS`; `key` what a grant looks for: a child's run id, an event's name, a condition, a site's
    matching key (`site_match.key_of`). `want` and `granted` are JSON text. The least (rank, since) is first."""

    run_id: str
    path: str
    kind: str
    key: str
    since: float
    rank: float
    due_at: float | None = None
    reason: str | None = None
    want: str | None = None
    granted: str | None = None


KINDS = ("site", "timer", "child", "event", "robot", "modbus")
__all__ = [
    "Grant", "Waiter", "add", "child_ended", "delete", "get", "give", "grant", "grant_parent", "granted", "keys",
    "load", "mark", "outcome", "place", "put", "take", "taken", "waken",
]  # fmt: skip

_w, _r = schema.waiter, schema.run
_FIELDS = Waiter.__struct_fields__
_COLUMNS = [_w.c[name] for name in _FIELDS]
PUT = Statement("waiter.put", _w, "upsert", _FIELDS, key=("run_id", "path"), large=(8,))
TAKEN = Statement("waiter.taken", _w, "update", ("run_id", "path"), key=("run_id", "path"), extra={"due_at": "-1"})
DELETE = Statement("waiter.delete", _w, "delete", ("run_id", "path"), key=("run_id", "path"))
GRANT_CHILD = Statement(
    "waiter.grant_child", _w, "update", ("run_id", "kind", "key", "granted"),
    key=("run_id", "kind", "key"), given="waiter.granted IS NULL", large=(3,),
)  # fmt: skip

_GET = Query(select(*_COLUMNS).where(_w.c.run_id == bindparam("owner_id"), _w.c.path == bindparam("at_path")))
_DELETE = Query(_w.delete().where(_w.c.run_id == bindparam("owner_id"), _w.c.path == bindparam("at_path")))
_LOAD = Query(select(*_COLUMNS).where(members(_w.c.run_id, "ids")).order_by(_w.c.run_id, _w.c.path))
_CHILD = Query(select(_r.c.state, _r.c.outputs, _r.c.error, _r.c.error_kind).where(_r.c.id == bindparam("child_id")))
_QUEUED = (
    _w.c.kind == bindparam("want_kind"),
    _w.c.key == bindparam("want_key"),
    _w.c.granted.is_(None),
)
_WAITING = Query(
    select(_w.c.run_id, _w.c.path)
    .where(*_QUEUED)
    .order_by(_w.c.rank, _w.c.since, _w.c.run_id, _w.c.path)
    .limit(bindparam("count"))
)
_NEXT_KEY = Query(
    select(func.min(_w.c.key)).where(
        _w.c.kind == bindparam("want_kind"), _w.c.granted.is_(None), _w.c.key > bindparam("after_key")
    )
)
_GRANTED = Query(
    select(_w.c.run_id, _w.c.path, _w.c.granted, _r.c.worker, _w.c.since)
    .select_from(_w.join(_r, _r.c.id == _w.c.run_id))
    .where(_w.c.granted.is_not(None), _r.c.worker == bindparam("worker_id"))
)
_CHILD_WAITERS = Query(
    select(_w.c.run_id, _w.c.path).where(
        _w.c.run_id == bindparam("parent_id"),
        _w.c.kind == "child",
        _w.c.key == bindparam("child_id"),
        _w.c.granted.is_(None),
    )
)
_GRANT = Query(
    update(_w)
    .where(_w.c.run_id == bindparam("owner_id"), _w.c.path == bindparam("at_path"))
    .values(granted=bindparam("given"))
)
_WAKE = Query(
    update(_r)
    .where(members(_r.c.id, "ids"), _r.c.state == State.WAITING.value, _r.c.worker.is_(None))
    .values(state=State.QUEUED.value, queue=READY, due_at=None)
)
_WORKERS = Query(select(_r.c.id, _r.c.worker).where(members(_r.c.id, "ids")))
_COUNT = Query(
    select(func.count()).select_from(
        select(literal_column("1"))
        .where(_w.c.kind == bindparam("want_kind"), _w.c.granted.is_(None))
        .limit(bindparam("cap"))
        .subquery()
    )
)
_BEFORE_ME = and_(  # as they are served: two that came at the same time have not the same place
    _w.c.rank <= bindparam("my_rank", type_=Double),  # lets the index seek; the tuple decides
    tuple_(_w.c.rank, _w.c.since, _w.c.run_id, _w.c.path)
    < tuple_(
        bindparam("my_rank", type_=Double),
        bindparam("my_since", type_=Double),
        bindparam("my_run", type_=String),
        bindparam("my_path", type_=String),
    ),
)
_AHEAD = Query(
    select(func.count()).select_from(
        select(literal_column("1")).where(*_QUEUED, _BEFORE_ME).limit(bindparam("cap")).subquery()
    )
)
_SITE_AHEAD = (_w.c.kind == "site", _w.c.granted.is_(None), _BEFORE_ME)
_KEYS_AHEAD = Query(select(_w.c.key).where(*_SITE_AHEAD).distinct())
_ONE_AHEAD = Query(select(_w.c.want).where(*_SITE_AHEAD, _w.c.key == bindparam("want_key")).limit(1))
_WANTS_AHEAD = Query(select(_w.c.want).where(*_SITE_AHEAD, members(_w.c.key, "keys")).limit(bindparam("cap")))
_MAX_KEYS = 500  # of so many it is asked whether they matter at all; of more, each want is looked at
_want = msgspec.json.Decoder(Want)


def put(
    run_id: str,
    path: str,
    kind: str,
    key: str,
    since: float,
    rank: float,
    due_at: float | None = None,
    reason: str | None = None,
    want: str | None = None,
) -> Op:
    """Wait. For kinds that may be granted before the row is there, use `add` (child) or `site.acquire`."""
    return PUT, (run_id, path, kind, key, since, rank, due_at, reason, want, None)


def delete(run_id: str, path: str) -> Op:
    """Wait no longer. A grant that came meanwhile is lost: use `take`, or `site.withdraw` for sites."""
    return DELETE, (run_id, path)


def taken(run_id: str, path: str) -> Op:
    """The block has gone on with what it was granted, and the row stays for a replay: it must wake the run no more.

    Such a row is one whose `due_at` is negative.
    """
    return TAKEN, (run_id, path)


def child_ended(child_id: str, parent_id: str, granted: str) -> tuple[Op, Op]:
    """Grant the parent's waiter for this child, and wake the parent if parked. Put them beside the child's end."""
    return (GRANT_CHILD, (parent_id, "child", child_id, granted)), wake(parent_id)


def grant_parent(tx: Tx, child_id: str, parent_id: str, granted: str) -> list[Grant]:
    """As `child_ended`, for an end that is made here and now."""
    waiting = tx.all(_CHILD_WAITERS, parent_id=parent_id, child_id=child_id)
    return give(tx, [(run_id, path, granted) for run_id, path in waiting])


def add(tx: Tx, waiter: Waiter) -> str | None:
    """Wait. For kind "child": if that run has ended, its outcome is granted and returned at once.

    The outcome is JSON text {"state", "outputs", "error", "error_kind"} with outputs as stored.
    """
    granted = waiter.granted
    if waiter.kind == "child":
        granted = _outcome(tx, waiter.key)
    tx.apply((PUT, msgspec.structs.astuple(msgspec.structs.replace(waiter, granted=granted))))
    return granted


def outcome(state: str, outputs: str | None, error: str | None, error_kind: str | None) -> str:
    """What a parent is granted when its child ends, as JSON text."""
    fields = {
        "state": state,
        "outputs": None if outputs is None else msgspec.Raw(outputs.encode()),
        "error": error,
        "error_kind": error_kind,
    }
    return msgspec.json.encode(fields).decode()


def _outcome(tx: Tx, child_id: str) -> str | None:
    row = tx.first(_CHILD, child_id=child_id)
    if row is None or row[0] not in ENDED:
        return None
    return outcome(*row)


def grant(tx: Tx, kind: str, key: str, granted: str, limit: int = 10_000) -> list[Grant]:
    """Grant the same to the first `limit` that wait for this key; call again while `limit` are returned."""
    waiting = [(run_id, path) for run_id, path in tx.all(_WAITING, want_kind=kind, want_key=key, count=limit)]
    return give(tx, [(run_id, path, granted) for run_id, path in waiting])


def keys(tx: Tx, kind: str, limit: int) -> list[str]:
    """The first ``limit`` different keys that somebody waits for: one look into the index each."""
    found: list[str] = []
    while len(found) < limit:
        key = tx.value(_NEXT_KEY, want_kind=kind, after_key=found[-1] if found else "")
        if key is None:
            break
        found.append(key)
    return found


def give(tx: Tx, gifts: Sequence[tuple[str, str, str]]) -> list[Grant]:
    """Write grants (run id, path, JSON text) into their waiters, and wake parked runs."""
    for run_id, path, granted in gifts:
        mark(tx, run_id, path, granted)
    return waken(tx, gifts)


def mark(tx: Tx, run_id: str, path: str, granted: str) -> None:
    """Write one grant; `waken` has to follow."""
    tx.run(_GRANT, owner_id=run_id, at_path=path, given=granted)


def waken(tx: Tx, gifts: Sequence[tuple[str, str, str]]) -> list[Grant]:
    """Make the parked ones of the runs that were given something ready."""
    if not gifts:
        return []
    ids = list(dict.fromkeys(run_id for run_id, _, _ in gifts))
    workers: dict[str, str | None] = dict(tx.all(_WORKERS, ids=ids))
    tx.run(_WAKE, ids=ids)
    return [Grant(run_id, path, granted, workers.get(run_id)) for run_id, path, granted in gifts]


def take(tx: Tx, run_id: str, path: str) -> str | None:
    """Wait no longer, and take what was granted, if anything was: for a time-out that races with a grant."""
    row = tx.first(_GET, owner_id=run_id, at_path=path)
    if row is None:
        return None
    tx.run(_DELETE, owner_id=run_id, at_path=path)
    return Waiter(*row).granted


def granted(tx: Tx, worker: str) -> list[Grant]:
    """Grants that runs in this worker's memory have not taken yet; other processes may have given them."""
    return [Grant(*row) for row in tx.all(_GRANTED, worker_id=worker)]


def get(tx: Tx, run_id: str, path: str) -> Waiter | None:
    row = tx.first(_GET, owner_id=run_id, at_path=path)
    return None if row is None else Waiter(*row)


def load(tx: Tx, run_ids: Iterable[str]) -> dict[str, list[Waiter]]:
    """The waiters of many runs in one query; every id has its list."""
    found: dict[str, list[Waiter]] = {run_id: [] for run_id in run_ids}
    for row in tx.all(_LOAD, ids=list(found)):
        found[row[0]].append(Waiter(*row))
    return found


def count(tx: Tx, cap: int = 100_000) -> dict[str, int]:
    """How many wait, by kind, counting each no further than `cap`."""
    return {kind: number for kind in KINDS if (number := int(tx.value(_COUNT, want_kind=kind, cap=cap)))}


def place(tx: Tx, run_id: str, path: str, cap: int = 1000) -> int:
    """The waiter's place in the queue: 1 = next; `cap` + 1 at most, for no more than `cap` are looked at.

    Before it are those ahead of it that might take what it waits for. For a site these are all whose wants overlap with
    its own ("any empty site" and "an empty one of group BUF"), so it may be served sooner; those who only look take
    nothing, and all of them are next at once. For all else these are those who wait for exactly the same.

    Raises:
        NotFoundError: nothing waits there.
    """
    waiter = get(tx, run_id, path)
    if waiter is None:
        raise NotFoundError(f"waiter {path} of run {run_id}")
    if waiter.granted is not None:
        return 1
    if waiter.kind == "site":
        return 1 + _rivals(tx, waiter, _wanted(waiter.want), cap)
    return 1 + int(tx.value(_AHEAD, want_kind=waiter.kind, want_key=waiter.key, cap=cap, **_mine(waiter)))


def _rivals(tx: Tx, waiter: Waiter, want: Want, cap: int) -> int:
    """How many ahead of it wait to take a site that it may be given."""
    me = _mine(waiter)
    keys = [key for (key,) in tx.all(_KEYS_AHEAD, **me)]
    if len(keys) <= _MAX_KEYS:
        keys = [key for key in keys if compete_under_key(want, _wanted(tx.value(_ONE_AHEAD, want_key=key, **me)))]
    ahead = tx.all(_WANTS_AHEAD, keys=keys, cap=cap, **me) if keys else []
    return sum(compete(want, _wanted(text)) for (text,) in ahead)


def _mine(waiter: Waiter) -> dict[str, Any]:
    return {"my_rank": waiter.rank, "my_since": waiter.since, "my_run": waiter.run_id, "my_path": waiter.path}


def _wanted(text: str | None) -> Want:
    return _want.decode(text or "{}")
