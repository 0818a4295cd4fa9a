"""The site family: places for loads, looked for, locked, set and set free.

A block that waits for a site is one row in the store, written in the transaction that looked in vain; whatever makes a
site suitable offers it to the rows in the same transaction (`flatwater.store.site`). What a block changes goes with the
record of its end (`BlockCall.conclude`): made again after a crash it could undo what another run has done since.
"""

from __future__ import annotations

from time import time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from flatwater.engine.block import BlockCall, block
from flatwater.engine.blocks.robot import names
from flatwater.engine.catalogue import MAX_DELAY_MS, Millis
from flatwater.engine.signal import WaitTimeout
from flatwater.errors import InputError, RunError
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store.ident import is_id
from flatwater.store.site import Change, Site, Want
from flatwater.store.site_match import key_of
from flatwater.store.tx import Tx
from flatwater.store.waiter import Grant

PAGE: Final = 1_000
TRY_S: Final = 1.0
"""What one of ``retryTimes`` of SetSiteLockedBp lasts."""

SiteId = Annotated[str, Meta(min_length=1, description="the site")]
Groups = Annotated[Any, Meta(description="one group or several: a list, or text with commas")]
Content = Annotated[str | None, Meta(description="what is on the site, exactly")]
Tags = Annotated[Any, Meta(description="tags that the site has, all of them")]
Filled = Annotated[bool | None, Meta(description="true: with a load; false: empty; not given: either")]
Lock = Annotated[bool, Meta(description="take it, until the run ends or unlocks it; false only looks")]
Locked = Annotated[bool, Meta(description="true looks among locked sites instead of idle ones")]
Fair = Annotated[bool, Meta(description="accepted and without effect: the queue is always fair")]
Descending = Annotated[bool, Meta(description="the last in order first; order is order number, then A_2 before A_10")]
MapId = Annotated[str | None, Meta(description="the map that the site is on")]
Period = Annotated[int, Meta(ge=1, le=MAX_DELAY_MS, description="milliseconds of one retry")]
Count = Annotated[int, Meta(ge=0, le=10**9)]
Tries = Annotated[Count | None, Meta(description="retries, each of retryPeriod; not given: for ever")]
TimeLimit = Annotated[Millis | None, Meta(description="milliseconds to wait; not given: for ever")]


class Found(Struct, rename="camel"):
    site_id: str


class MaybeFound(Struct, rename="camel"):
    site_id: str | None


class SiteInfo(Struct, rename="camel"):
    """A site as definitions see it. ``lockedBy`` is the run, ``lockedId`` the name given with the lock."""

    site_id: str
    group_name: str | None
    filled: bool
    content: str | None
    locked: bool
    locked_by: str | None
    locked_id: str | None
    enabled: bool
    order_no: int
    tags: list[str]
    attrs: dict[str, Any]
    map_id: str | None
    x: float | None
    y: float | None


class Queried(Struct):
    site: SiteInfo | None


class Success(Struct):
    success: bool


class AttrValue(Struct, rename="camel"):
    attr_value: Any


class Changed(Struct, rename="camel"):
    site_id_list: list[str]


class LockedSites(Struct, rename="camel"):
    locked_site_id_list: list[str]


# ---- looking and waiting ----------------------------------------------------------------------------


@block("GetIdleSiteBp", family="site", camel=True)
async def get_idle_site(
    site_id: Annotated[str | None, Meta(description="this very site")] = None,
    content: Content = None,
    filled: Filled = None,
    type_: Tags = None,
    group_name: Groups = None,
    lock: Lock = False,
    locked: Locked = False,
    retry_period: Period = 1_000,
    retry_num: Tries = None,
    timeout_ms: TimeLimit = None,
    if_fair: Fair = True,
    order_desc: Descending = False,
    map_id: MapId = None,
    priority: Annotated[int | None, Meta(description="place in the queue; not given: the run's")] = None,
    *,
    call: BlockCall,
) -> Found:
    """Gives a site that suits; waits for one, in the order of priority and arrival, when there is none.

    Fails when the time is over. Nothing is polled: the wait ends with the change that makes a site suit.
    """
    want = Want(
        site_id=site_id,
        groups=names(group_name),
        filled=filled,
        content=content,
        tags=names(type_),
        map_id=map_id,
        order="desc" if order_desc else "asc",
        lock=lock,
        locked=locked,
    )
    rank = call.rank if priority is None else call.rank + _earlier_s(priority, call)
    return Found(await claim(want, limit_s(timeout_ms, retry_num, retry_period), rank, call))


@block("GetIdleCrowdedSiteBp", family="site", camel=True)
async def get_idle_crowded_site(
    group_name: Groups,
    filled: Annotated[bool, Meta(description="false: the deepest cell to put into; true: the first load to take")],
    content: Content = None,
    lock: Lock = False,
    retry: Annotated[bool, Meta(description="false: look once, and give null when there is none")] = True,
    retry_period: Period = 1_000,
    retry_num: Tries = None,
    timeout_ms: TimeLimit = None,
    *,
    call: BlockCall,
) -> MaybeFound:
    """Gives the cell of a dense lane that can be reached: to put, the deepest free one; to take, the first load.

    Only one run at a time works at one mouth of a lane, if it locks.
    """
    want = Want(groups=names(group_name), filled=filled, content=content, dense=True, lock=lock)
    if retry:
        return MaybeFound(await claim(want, limit_s(timeout_ms, retry_num, retry_period), call.rank, call))
    site = await call.transact(look, want, call.run_id, call.path, time())
    if site is not None and want.claims:
        call.holds_site()
    return MaybeFound(None if site is None else site.id)


@block("QueryIdleSiteBp", family="site", camel=True)
async def query_idle_site(
    site_id: Annotated[str | None, Meta(description="this very site")] = None,
    content: Content = None,
    filled: Filled = None,
    type_: Tags = None,
    group_name: Groups = None,
    locked: Locked = False,
    order_desc: Descending = False,
    map_id: MapId = None,
    *,
    call: BlockCall,
) -> Queried:
    """Gives the first site that suits, or null; neither waits nor locks."""
    want = Want(
        site_id=site_id,
        groups=names(group_name),
        filled=filled,
        content=content,
        tags=names(type_),
        map_id=map_id,
        order="desc" if order_desc else "asc",
        lock=False,
        locked=locked,
    )
    site = await call.services.store.read(sites.find, want)
    return Queried(None if site is None else info(site))


async def claim(want: Want, within_s: float | None, rank: float, call: BlockCall) -> str:
    """A site for ``want``, at once or after a wait of at most ``within_s`` seconds. A replay finds what it was granted.

    Raises `RunError` when the time is over, `InputError` for a want that contradicts itself.
    """
    if want.lock and want.locked:
        raise InputError("lock and locked exclude each other", where=call.path, hint="a locked site cannot be taken")
    if want.claims:
        call.holds_site()  # before the transaction: a block stopped in its middle may hold one all the same
    reason, known = describe(want), call.waited()
    if known is None:
        known = call.expect("site", key_of(want), reason=reason, timeout_s=within_s)
        owner = (call.run_id, known.path, rank, known.since, known.due_at, reason)
        site = await call.transact(sites.acquire, want, *owner)
        if site is not None:
            return str(site.id)
    try:
        granted = await call.wait("site", known.key, reason=reason, timeout_s=within_s, insert=False)
    except WaitTimeout:
        call.granted(await call.transact(sites.withdraw, call.run_id, known.path, time()))
        raise RunError(f"there was no {reason.partition(' ')[2]} within {within_s:g} s", where=call.path) from None
    return str(granted["siteId"])


def look(tx: Tx, want: Want, run_id: str, path: str, now: float) -> Site | None:
    """As a claim, but without a wait."""
    if not want.claims:
        return sites.find(tx, want)
    found = sites.acquire(tx, want, run_id, path, 0.0, now)
    if found is None:
        sites.withdraw(tx, run_id, path, now)
    return found


def limit_s(timeout_ms: int | None, retry_num: int | None, retry_period: int) -> float | None:
    """The shorter of the two limits, in seconds; none when neither is given."""
    tries_ms = None if retry_num is None else retry_num * retry_period
    given = [each for each in (timeout_ms, tries_ms) if each is not None]
    return min(given) / 1000 if given else None


def _earlier_s(priority: int, call: BlockCall) -> float:
    """By how much the rank differs from the run's."""
    return (call.priority - priority) * call.services.options.ageing_s


def describe(want: Want) -> str:
    """What is waited for, in words: "an empty site in group BUF"."""
    state = {None: "", True: "filled ", False: "empty "}[want.filled] + ("locked " if want.locked else "")
    if want.site_id is not None:
        text = f"the {state}site {want.site_id}" if not want.dense else f"the cell {want.site_id}"
    else:
        noun = (
            "cell to put into" if want.dense and not want.filled else "load to take" if want.dense else f"{state}site"
        )
        text = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    text += f" with {want.content}" if want.content is not None else ""
    text += f" tagged {', '.join(want.tags)}" if want.tags else ""
    text += f" on map {want.map_id}" if want.map_id is not None else ""
    if want.groups:
        text += f" in group{'s' if len(want.groups) > 1 else ''} {', '.join(want.groups)}"
    return text


# ---- setting ----------------------------------------------------------------------------------------


@block("SetSiteFilledBp", family="site", camel=True)
async def set_site_filled(site_id: SiteId, *, call: BlockCall) -> None:
    """Says that a load is on the site."""
    change(site_id, Change(filled=True), call)


@block("SetSiteEmptyBp", family="site", camel=True)
async def set_site_empty(site_id: SiteId, *, call: BlockCall) -> None:
    """Says that no load is on the site; its content goes with it."""
    change(site_id, Change(filled=False, content=None), call)


@block("SetSiteContentBp", family="site", camel=True)
async def set_site_content(site_id: SiteId, content: Content = None, *, call: BlockCall) -> None:
    """Says what is on the site; null: nothing known."""
    change(site_id, Change(content=content), call)


@block("SetSiteTagsBp", family="site", camel=True)
async def set_site_tags(
    site_id: SiteId,
    tags: Annotated[Any, Meta(description="all of its tags: a list, or text with commas; null removes them")] = None,
    *,
    call: BlockCall,
) -> None:
    """Replaces the site's tags."""
    change(site_id, Change(tags=names(tags)), call)


@block("SetSiteAttrBp", family="site", camel=True)
async def set_site_attr(
    site_id: SiteId,
    attr_name: Annotated[str, Meta(min_length=1, description="the attribute's name")],
    attr_value: Annotated[Any, Meta(description="any JSON value; null removes the attribute")] = None,
    *,
    call: BlockCall,
) -> None:
    """Sets one attribute of the site."""
    call.conclude(write_attr, site_id, attr_name, attr_value, call.run_id, call.path, time())


@block("GetSiteAttrBp", family="site", camel=True)
async def get_site_attr(
    site_id: SiteId,
    attr_name: Annotated[str, Meta(min_length=1, description="the attribute's name")],
    *,
    call: BlockCall,
) -> AttrValue:
    """Gives one attribute of the site, null when it has none of that name."""
    return AttrValue(attributes(await call.services.store.read(sites.get, site_id)).get(attr_name))


@block("BatchSettingSiteBp", family="site", camel=True)
async def batch_setting_site(
    site_ids: Annotated[Any, Meta(description="the sites: a list, or text with commas")] = None,
    group_names: Annotated[Any, Meta(description="and all sites of these groups")] = None,
    filled: Annotated[bool | None, Meta(description="not given: stays as it is")] = None,
    content: Annotated[str | None, Meta(description="not given: stays, or goes when filled is false")] = None,
    *,
    call: BlockCall,
) -> Changed:
    """Sets many sites at once: all of them, or none when another run has locked one."""
    fields: dict[str, Any] = {}
    if filled is not None:
        fields["filled"] = filled
    if content is not None or filled is False:
        fields["content"] = content
    if not fields:
        raise InputError("neither filled nor content is given", where=call.path, hint="say what to set")
    ids = await call.services.store.read(wanted, names(site_ids), names(group_names))
    call.conclude(sites.set_many, ids, Change(**fields), time(), call.run_id, call.path)
    return Changed(ids)


def change(site_id: str, what: Change, call: BlockCall) -> None:
    """Set a site and offer it, once, with the end of the block.

    That fails with `NotFoundError`; with `ConflictError` when another run has locked the site.
    """
    call.conclude(sites.set, site_id, what, time(), call.run_id, call.path)


def write_attr(tx: Tx, site_id: str, name: str, value: Any, run_id: str, path: str, now: float) -> list[Grant]:
    attrs = attributes(sites.get(tx, site_id))
    attrs.pop(name, None)
    if value is not None:
        attrs[name] = value
    return sites.set(tx, site_id, Change(attrs=msgspec.json.encode(attrs).decode()), now, run_id, path)


def wanted(tx: Tx, ids: tuple[str, ...], groups: tuple[str, ...]) -> list[str]:
    """These sites and all sites of the groups, each once."""
    return list(dict.fromkeys((*ids, *(site for group in groups for site in members(tx, group)))))


def members(tx: Tx, group: str) -> list[str]:
    """The ids of a group's sites, in site order."""
    found: list[str] = []
    while True:
        page = sites.page(tx, group, after=found[-1] if found else None, limit=PAGE)
        found += [site.id for site in page]
        if len(page) < PAGE:
            return found


# ---- locks ------------------------------------------------------------------------------------------


@block("SetSiteLockedBp", family="site", camel=True)
async def set_site_locked(
    site_id: SiteId,
    locked_id: Annotated[str | None, Meta(description="a name for the lock, shown with it")] = None,
    if_fair: Fair = True,
    retry_times: Annotated[int, Meta(ge=0, le=10**9, description="seconds to wait while another run has it")] = 0,
    *,
    call: BlockCall,
) -> Success:
    """Locks this very site for the run, which may have it already. Fails when another run keeps it."""
    if retry_times:
        await claim(Want(site_id=site_id, text=locked_id), retry_times * TRY_S, call.rank, call)
    else:
        call.holds_site()
        await call.transact(sites.lock, site_id, call.run_id, call.path, locked_id, time())
    return Success(success=True)


@block("SetSiteUnlockedBp", family="site", camel=True)
async def set_site_unlocked(
    site_id: SiteId,
    un_locked_id: Annotated[str | None, Meta(description="the name that the lock was given, or its run")] = None,
    *,
    call: BlockCall,
) -> None:
    """Unlocks a site that this run has locked, or that was locked under this name."""
    call.conclude(sites.unlock, site_id, call.run_id, un_locked_id, time())


@block("GetLockedSitesByTaskRecordIdBp", family="site", camel=True)
async def get_locked_sites(
    task_record_id: Annotated[str | None, Meta(description="a run's id or order number; not given: this run")] = None,
    *,
    call: BlockCall,
) -> LockedSites:
    """Gives the sites that a run has locked, in site order."""
    return LockedSites(await call.services.store.read(held, task_record_id or call.run_id))


def held(tx: Tx, name: str) -> list[str]:
    """The sites of the run with this id, or else this order number."""
    run_id = name if is_id(name) else runs.find(tx, name) or name
    return [site.id for site in sites.held(tx, run_id)]


# ---- sites as definitions see them ------------------------------------------------------------------


def attributes(site: Site) -> dict[str, Any]:
    """The site's attributes, a copy."""
    return dict(msgspec.json.decode(site.attrs)) if site.attrs else {}


def info(site: Site) -> SiteInfo:
    return SiteInfo(
        site_id=site.id,
        group_name=site.group_name,
        filled=site.filled,
        content=site.content,
        locked=site.locked_run is not None,
        locked_by=site.locked_run,
        locked_id=site.locked_text,
        enabled=site.enabled,
        order_no=site.order_no,
        tags=list(site.tags),
        attrs=attributes(site),
        map_id=site.map_id,
        x=site.x,
        y=site.y,
    )
