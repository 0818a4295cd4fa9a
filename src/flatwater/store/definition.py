"""Definitions. A run refers to the content it was started with by its hash, so a new version changes no running run."""

from __future__ import annotations

import hashlib

import msgspec
from sqlalchemy import bindparam, func, select, update
from sqlalchemy import delete as sql_delete

from flatwater.errors import ConflictError, NotFoundError
from flatwater.store import schema
from flatwater.store.commit import refusable
from flatwater.store.statement import Statement
from flatwater.store.tx import Query, Tx


class Definition(msgspec.Struct, frozen=True):
    """`hash` names the content (`body`). `version` counts the contents saved under this id."""

    id: str
    label: str
    version: int
    hash: str
    remark: str | None
    enabled: bool
    created_at: float
    updated_at: float


_d, _n, _r, _t = schema.definition, schema.snapshot, schema.run, schema.trigger
_FIELDS = Definition.__struct_fields__
_COLUMNS = [_d.c[name] for name in _FIELDS]
_SAVE = Statement("definition.save", _d, "upsert", _FIELDS, key=("id",))
_SNAPSHOT = Statement("snapshot.insert", _n, "insert", ("hash", "body", "created_at"))
_GET = Query(select(*_COLUMNS).where(_d.c.id == bindparam("definition_id")))
_BODY = Query(select(_n.c.body).where(_n.c.hash == bindparam("digest")))
_ENABLE = Query(update(_d).where(_d.c.id == bindparam("definition_id")).values(enabled=bindparam("on")))
_DELETE = Query(sql_delete(_d).where(_d.c.id == bindparam("definition_id")))
_USES = Query(
    select(func.count()).select_from(
        select(_r.c.id).where(_r.c.definition_id == bindparam("definition_id")).limit(bindparam("cap")).subquery()
    )
)
_TRIGGERS = Query(select(func.count()).where(_t.c.definition_id == bindparam("definition_id")))


def digest(body: str) -> str:
    """The name of a content: SHA-256 of its text, which should be canonical (sorted keys, no spaces)."""
    return hashlib.sha256(body.encode()).hexdigest()


@refusable
def save(tx: Tx, definition_id: str, label: str, body: str, remark: str | None, now: float) -> Definition:
    """Insert, or replace: the version rises when the content differs. `body` is canonical JSON text."""
    found = tx.first(_GET, definition_id=definition_id)
    old = None if found is None else _definition(found)
    name = digest(body)
    version = 1 if old is None else old.version + (old.hash != name)
    created_at = now if old is None else old.created_at
    row = Definition(definition_id, label, version, name, remark, True, created_at, now)
    put_body(tx, body, now)
    tx.apply((_SAVE, (*msgspec.structs.astuple(row)[:5], 1, created_at, now)))
    return row


def put_body(tx: Tx, body: str, now: float) -> str:
    """Keep a content without a definition (a run of a single function); returns its hash."""
    name = digest(body)
    tx.apply((_SNAPSHOT, (name, body, now)))
    return name


def get(tx: Tx, definition_id: str) -> Definition:
    """Raises NotFoundError."""
    row = tx.first(_GET, definition_id=definition_id)
    if row is None:
        raise NotFoundError(f"definition {definition_id!r}", hint="see `flatwater definitions`")
    return _definition(row)


def body(tx: Tx, content_hash: str) -> str:
    """The content with this hash, as JSON text. Raises NotFoundError."""
    text: str | None = tx.value(_BODY, digest=content_hash)
    if text is None:
        raise NotFoundError(f"content {content_hash}")
    return text


def page(tx: Tx, after: str = "", limit: int = 50, label: str | None = None) -> list[Definition]:
    """Definitions in order of id, those after the id `after`."""
    query = select(*_COLUMNS).where(_d.c.id > after).order_by(_d.c.id).limit(limit)
    if label is not None:
        query = query.where(_d.c.label == label)
    return [_definition(row) for row in tx.all(query)]


def enable(tx: Tx, definition_id: str, on: bool) -> None:
    """A disabled definition starts no new runs. Raises NotFoundError."""
    if tx.run(_ENABLE, definition_id=definition_id, on=int(on)) == 0:
        raise NotFoundError(f"definition {definition_id!r}")


def delete(tx: Tx, definition_id: str) -> None:
    """Raises NotFoundError; ConflictError while stored runs or triggers refer to it (disable it instead)."""
    get(tx, definition_id)
    if tx.value(_USES, definition_id=definition_id, cap=1):
        raise ConflictError(f"definition {definition_id!r} has runs", hint="disable it; retention removes old runs")
    if tx.value(_TRIGGERS, definition_id=definition_id):
        raise ConflictError(f"definition {definition_id!r} has triggers", hint="delete them first")
    tx.run(_DELETE, definition_id=definition_id)


def _definition(row: tuple[object, ...]) -> Definition:
    fields = list(row)
    fields[5] = bool(fields[5])
    return Definition(*fields)  # type: ignore[arg-type]
