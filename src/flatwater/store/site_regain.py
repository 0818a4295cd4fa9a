"""The sites that a run had when it ended without success: a retry goes on only when it has them again.

The blocks that took them count as done and are not executed again, so going on without would move loads from and to
sites that are somebody else's by now.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import bindparam, select, update

from flatwater.errors import ConflictError, NotFoundError
from flatwater.store import schema, site_find, site_write
from flatwater.store.site_record import Site
from flatwater.store.tx import Query, Tx

_r = schema.run
_POLICY = Query(select(_r.c.policy).where(_r.c.id == bindparam("run_id")))
_SET_POLICY = Query(update(_r).where(_r.c.id == bindparam("run_id")).values(policy=bindparam("text")))


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A site as it was when its run ended."""

    site_id: str
    path: str | None
    text: str | None
    mouth: int | None
    filled: bool
    content: str | None


def remember(tx: Tx, run_id: str) -> None:
    """Note in the run which sites it has; to be called before they are released."""
    held = [
        Held(site.id, site.locked_path, site.locked_text, site.locked_mouth, site.filled, site.content)
        for site in site_find.held(tx, run_id)
    ]
    if held:
        _note(tx, run_id, held)


def regain(tx: Tx, run_id: str, now: float) -> None:
    """Lock again what the run had.

    Raises:
        ConflictError: one of the sites is gone, taken, disabled, or not as the run left it.
    """
    policy = _policy(tx, run_id)
    listed = policy.get("held")
    if not listed:
        return
    for held in msgspec.convert(listed, list[Held]):
        _regain_one(tx, run_id, held, now)
    _note(tx, run_id, None)


def _regain_one(tx: Tx, run_id: str, held: Held, now: float) -> None:
    try:
        site = site_find.get(tx, held.site_id)
    except NotFoundError:
        raise _refused(held, "does not exist any more") from None
    if site.locked_run == run_id:
        return
    if (site.filled, site.content) != (held.filled, held.content):
        raise _refused(held, f"is {_load(site.filled, site.content)}, it was {_load(held.filled, held.content)}")
    if not _lock(tx, site, run_id, held, now):
        owner = f"is locked by {site.locked_run}" if site.locked_run else "is disabled"
        raise _refused(held, owner)


def _lock(tx: Tx, site: Site, run_id: str, held: Held, now: float) -> bool:
    return site_write.lock(tx, site, run_id, held.path, now, held.text, held.mouth)


def _load(filled: bool, content: str | None) -> str:
    return f"filled with {content}" if filled and content else "filled" if filled else "empty"


def _refused(held: Held, why: str) -> ConflictError:
    return ConflictError(
        f"site {held.site_id!r}, which the run had, {why}",
        where=held.path or "",
        hint="make the site as it was and free, or start a new run",
    )


def _policy(tx: Tx, run_id: str) -> dict[str, object]:
    text = tx.value(_POLICY, run_id=run_id)
    return dict(msgspec.json.decode(text)) if text else {}


def _note(tx: Tx, run_id: str, held: list[Held] | None) -> None:
    policy = _policy(tx, run_id)
    if held is None:
        policy.pop("held", None)
    else:
        policy["held"] = held
    tx.run(_SET_POLICY, run_id=run_id, text=msgspec.json.encode(policy).decode() if policy else None)
