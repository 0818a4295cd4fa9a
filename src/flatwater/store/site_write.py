"""Writing sites: every write is recorded beside it, for the log of changes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import bindparam, update

from flatwater.store import schema
from flatwater.store.site_record import Site
from flatwater.store.tx import Query, Tx

_s, _c, _r = schema.site, schema.site_change, schema.run
_LOCK = Query(
    update(_s)
    .where(_s.c.id == bindparam("site_id"), _s.c.locked_run.is_(None), _s.c.enabled == 1)
    .values(
        locked_run=bindparam("owner"), locked_path=bindparam("at_path"), locked_text=bindparam("shown"),
        locked_at=bindparam("now"), locked_mouth=bindparam("mouth"), updated_at=bindparam("now"),
    )
)  # fmt: skip
_UNLOCK = Query(
    update(_s)
    .where(_s.c.id == bindparam("site_id"))
    .values(
        locked_run=None, locked_path=None, locked_text=None, locked_at=None, locked_mouth=None,
        updated_at=bindparam("now"),
    )
)  # fmt: skip
_CHANGED = Query(_c.insert().values({name: bindparam(name) for name in ("at", "site_id", "run_id", "path", "change")}))
_RUN_LOCKED = Query(
    update(_r).where(_r.c.id == bindparam("run_id"), _r.c.locked != bindparam("flag")).values(locked=bindparam("flag"))
)


def lock(
    tx: Tx, site: Site, run_id: str, path: str | None, now: float, text: str | None = None, mouth: int | None = None
) -> bool:
    """Take a free enabled site by one conditional update; False when it is not free."""
    taken = tx.run(_LOCK, site_id=site.id, owner=run_id, at_path=path, shown=text, now=now, mouth=mouth)
    if taken == 0:
        return False
    mark_run(tx, run_id, locked=True)
    record(tx, site.id, run_id, path, now, {"locked_run": run_id, "locked_path": path, "locked_text": text})
    return True


def unlock(tx: Tx, site: Site, run_id: str | None, path: str | None, now: float) -> None:
    tx.run(_UNLOCK, site_id=site.id, now=now)
    record(tx, site.id, run_id, path, now, {"locked_run": None, "was": site.locked_run})


def change(tx: Tx, site_id: str, fields: Mapping[str, Any], run_id: str | None, path: str | None, now: float) -> None:
    """Set columns by name; tags come as a sequence."""
    stored = {name: _stored(value) for name, value in fields.items()}
    tx.run(_update(frozenset(stored)), which=site_id, now=now, **{f"new_{name}": stored[name] for name in stored})
    record(tx, site_id, run_id, path, now, fields)


def record(tx: Tx, site_id: str, run_id: str | None, path: str | None, now: float, fields: Mapping[str, Any]) -> None:
    text = msgspec.json.encode(fields).decode()
    tx.run(_CHANGED, at=now, site_id=site_id, run_id=run_id, path=path, change=text)


def mark_run(tx: Tx, run_id: str, *, locked: bool) -> None:
    """Note on the run whether it holds sites, so that the end of a run that never did costs nothing."""
    tx.run(_RUN_LOCKED, run_id=run_id, flag=int(locked))


@lru_cache(maxsize=256)
def _update(names: frozenset[str]) -> Query:
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in sorted(names)}
    return Query(update(_s).where(_s.c.id == bindparam("which")).values(**values, updated_at=bindparam("now")))


def _stored(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return msgspec.json.encode(value).decode() if isinstance(value, (tuple, list)) else value
