"""Sites: claim, wait, set, release. Every change is offered at once to those who wait, in the same transaction.

A site has one owner: (run, block path). A claim is one conditional update; claiming again as the same owner finds the
same site. Since each change is offered, nobody waits while something suitable is free, so a claim needs not look at
the queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import bindparam, delete, select

from flatwater.errors import ConflictError
from flatwater.store import ident, schema, site_find, site_write, waiter
from flatwater.store.commit import refusable
from flatwater.store.site_find import changes, get, held, page
from flatwater.store.site_match import key_of, natural_key
from flatwater.store.site_offer import offer
from flatwater.store.site_record import Change, Site, SiteChange, SiteSpec, Want
from flatwater.store.state import ENDED, State
from flatwater.store.statement import Statement
from flatwater.store.tx import Query, Tx
from flatwater.store.waiter import Grant, Waiter

__all__ = [
    "Change", "Site", "SiteChange", "SiteSpec", "Want", "acquire", "changes", "find", "get", "held", "lock", "offer",
    "page", "release", "remove", "save", "set", "set_many", "sweep", "unlock", "withdraw",
]  # fmt: skip

_s, _r = schema.site, schema.run
_INSERT = Statement("site.insert", _s, "insert", ("id", "sort_key", "updated_at"))
_DELETE = Query(delete(_s).where(_s.c.id == bindparam("site_id")))
_OWNERS = Query(select(_s.c.locked_run).where(_s.c.locked_run.is_not(None)).distinct())
_OWNER = Query(select(_r.c.state, _r.c.policy).where(_r.c.id == bindparam("run_id")))


class _Policy(msgspec.Struct):
    release: str = "always"


def find(tx: Tx, want: Want) -> Site | None:
    """The best suitable site now; neither waits nor locks."""
    found = site_find.best(tx, want)
    return None if found is None else found[0]


def acquire(
    tx: Tx,
    want: Want,
    run_id: str,
    path: str,
    rank: float,
    now: float,
    due_at: float | None = None,
    reason: str | None = None,
) -> Site | None:
    """Take the best suitable site (or only find it, as `want` says), else wait for one: then None.

    What this owner has already, or was granted while waiting, is returned again. Waiting again keeps one's place.
    """
    waiting = waiter.get(tx, run_id, path)
    if waiting is not None and waiting.granted is not None:
        waiter.take(tx, run_id, path)
        return get(tx, _site_of(waiting.granted))
    mine = next((site for site in held(tx, run_id) if site.locked_path == path), None) if want.claims else None
    site = mine or _take_best(tx, want, run_id, path, now)
    if site is not None:
        if waiting is not None:
            waiter.take(tx, run_id, path)
        return site
    if waiting is None:
        text = msgspec.json.encode(want).decode()
        waiter.add(tx, Waiter(run_id, path, "site", key_of(want), now, rank, due_at, reason, text))
    return None


def _take_best(tx: Tx, want: Want, run_id: str, path: str, now: float) -> Site | None:
    found = site_find.best(tx, want)
    if found is None:
        return None
    site, mouth = found
    if want.claims and not site_write.lock(tx, site, run_id, path, now, want.text, mouth):
        return None
    return get(tx, site.id)


def withdraw(tx: Tx, run_id: str, path: str, now: float) -> list[Grant]:
    """Wait no longer, and want nothing of it: a site granted meanwhile is released to the next."""
    granted = waiter.take(tx, run_id, path)
    if granted is None:
        return []
    return release(tx, run_id, now, [path])


def set(
    tx: Tx,
    site_id: str,
    change: Change,
    now: float,
    run_id: str | None = None,
    path: str | None = None,
    force: bool = False,
) -> list[Grant]:
    """Set what `change` names.

    Raises:
        NotFoundError. ConflictError: a run other than `run_id` has locked the site, and `force` is not given.
    """
    return set_many(tx, [site_id], change, now, run_id, path, force)


def set_many(
    tx: Tx,
    site_ids: Sequence[str],
    change: Change,
    now: float,
    run_id: str | None = None,
    path: str | None = None,
    force: bool = False,
) -> list[Grant]:
    """As `set`, for all of these sites or, when one refuses, for none."""
    fields = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
    for site_id in site_ids:
        site = get(tx, site_id)
        if not force and site.locked_run not in (None, run_id):
            raise ConflictError(f"site {site_id!r} is locked by {site.locked_run}", hint="only its owner may set it")
        if fields:
            site_write.change(tx, site_id, fields, run_id, path, now)
    return offer(tx, site_ids, now)


def lock(tx: Tx, site_id: str, run_id: str, path: str | None, text: str | None, now: float) -> None:
    """Lock this very site; a run that has it already keeps it.

    Raises:
        NotFoundError. ConflictError: it is disabled or another's.
    """
    site = get(tx, site_id)
    if site.locked_run == run_id:
        return
    if not site_write.lock(tx, site, run_id, path, now, text):
        why = "disabled" if not site.enabled else f"locked by {site.locked_run}"
        raise ConflictError(f"site {site_id!r} is {why}")


def unlock(tx: Tx, site_id: str, run_id: str | None, text: str | None, now: float, force: bool = False) -> list[Grant]:
    """Unlock a site that `run_id` has locked, or that was locked under the name `text`. An unlocked one stays so.

    Raises:
        NotFoundError. ConflictError: it is another's, and `force` is not given.
    """
    site = get(tx, site_id)
    if site.locked_run is None:
        return []
    named = text is not None and text in (site.locked_text, site.locked_run)
    if not (force or named or site.locked_run == run_id):
        raise ConflictError(f"site {site_id!r} is locked by {site.locked_run}", hint="only its owner may unlock it")
    return _free(tx, [site], run_id, now)


def release(tx: Tx, run_id: str, now: float, paths: Iterable[str] | None = None) -> list[Grant]:
    """Unlock all sites of a run, or those that its blocks at `paths` have taken."""
    wanted = None if paths is None else frozenset(paths)
    return _free(tx, [site for site in held(tx, run_id) if wanted is None or site.locked_path in wanted], run_id, now)


def _free(tx: Tx, sites: Sequence[Site], run_id: str | None, now: float) -> list[Grant]:
    for site in sites:
        site_write.unlock(tx, site, run_id, site.locked_path, now)
    for owner in dict.fromkeys(site.locked_run for site in sites):
        if owner is not None and not held(tx, owner):
            site_write.mark_run(tx, owner, locked=False)
    return offer(tx, [site.id for site in sites], now)


def sweep(tx: Tx, now: float) -> list[Grant]:
    """Release the locks of runs that have ended (unless their policy keeps them) or do not exist."""
    grants: list[Grant] = []
    for (owner,) in tx.all(_OWNERS):
        if ident.is_id(owner) and _orphaned(tx.first(_OWNER, run_id=owner)):
            grants += release(tx, owner, now)
    return grants


def _orphaned(run: tuple[str, str | None] | tuple[object, ...] | None) -> bool:
    if run is None:
        return True
    state, policy = run
    if state not in ENDED:
        return False
    release_on = msgspec.json.decode(str(policy), type=_Policy).release if policy else "always"
    return release_on == "always" or (release_on == "failure" and state != State.SUCCEEDED)


@refusable
def save(tx: Tx, specs: Sequence[SiteSpec], now: float) -> list[Grant]:
    """Insert sites, or change the fields that are set of those that exist. Locks stay as they are."""
    for spec in specs:
        fields = {name: value for name, value in msgspec.structs.asdict(spec).items() if value is not msgspec.UNSET}
        site_id = fields.pop("id")
        tx.apply((_INSERT, (site_id, natural_key(site_id), now)))
        if fields:
            site_write.change(tx, site_id, fields, None, None, now)
    return offer(tx, [spec.id for spec in specs], now)


def remove(tx: Tx, site_ids: Sequence[str]) -> None:
    """Raises NotFoundError; ConflictError while a run has locked one of them."""
    for site_id in site_ids:
        site = get(tx, site_id)
        if site.locked_run is not None:
            raise ConflictError(f"site {site_id!r} is locked by {site.locked_run}", hint="release it first")
        tx.run(_DELETE, site_id=site_id)


def _site_of(granted: str) -> str:
    return str(msgspec.json.decode(granted)["siteId"])
