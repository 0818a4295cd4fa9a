"""Storage sites: list, import, change by hand, and the log of changes."""

from __future__ import annotations

from time import time
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from flatwater.errors import NotFoundError
from flatwater.server.problem import RequestError
from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.base import MAX_ITEMS, Id, Page, number, page_of, shown
from flatwater.server.type.site import (
    Imported,
    LockOwner,
    Site,
    SiteChange,
    SiteChanged,
    SiteChangeQuery,
    SiteInput,
    SiteList,
    SiteQuery,
)
from flatwater.store import site as sites
from flatwater.store.tx import Tx
from flatwater.store.waiter import Grant

table = Table("sites")

SiteInputs = Annotated[list[SiteInput], Meta(max_length=MAX_ITEMS)]


@table.add("GET", "/api/sites")
async def list_sites(service: Service, query: SiteQuery) -> SiteList:
    """The sites in their order, of one group or of all."""
    found = await service.store.read(_page, query)
    page = page_of(found, query.limit, site_info, lambda site: site.id)
    groups = sorted({site.group for site in page.items if site.group is not None})
    return SiteList(page.items, groups, page.next)


def _page(tx: Tx, query: SiteQuery) -> list[sites.Site]:
    try:
        return sites.page(tx, query.group, None, None, query.cursor, query.limit + 1)
    except NotFoundError:
        raise RequestError(422, "invalid", "this site is gone: begin anew", where="query: cursor") from None


@table.add("PUT", "/api/sites")
async def import_sites(service: Service, body: SiteInputs) -> Imported:
    """Create sites, or change those that exist in the fields given. Whoever waits for one of them is offered it."""
    specs = [site_spec(item) for item in body]
    service.engine.services.granted(await service.store.writer.call(sites.save, specs, time()))
    return Imported(len(specs))


@table.add("GET", "/api/sites/changes")
async def list_changes(service: Service, query: SiteChangeQuery) -> Page[SiteChanged]:
    """What happened to sites, newest first."""
    found = await service.store.read(sites.changes, query.site, number(query.cursor), query.limit + 1)
    return page_of(found, query.limit, _changed, lambda row: row.id)


@table.add("GET", "/api/sites/{site_id:path}", errors=(404,))
async def get_site(service: Service, site_id: Id) -> Site:
    """One site."""
    return site_info(await service.store.read(sites.get, site_id))


@table.add("PATCH", "/api/sites/{site_id:path}", errors=(404, 409))
async def change_site(service: Service, site_id: Id, body: SiteChange) -> Site:
    """Change a site by hand. 409 when a run holds it; `locked: false` takes it away from that run first."""
    service.engine.services.granted(await service.store.writer.call(_change, site_id, body, time()))
    return site_info(await service.store.read(sites.get, site_id))


def _change(tx: Tx, site_id: str, body: SiteChange, now: float) -> list[Grant]:
    """All in one transaction, so that nobody takes the site in between."""
    change = sites.Change(
        filled=body.filled, content=body.content, enabled=body.enabled, tags=body.tags, attrs=_attrs(body.attrs)
    )
    grants = sites.set(tx, site_id, change, now, force=body.locked is not UNSET)
    return grants + (sites.unlock(tx, site_id, None, None, now, force=True) if body.locked is not UNSET else [])


def _attrs(given: dict[str, Any] | UnsetType) -> str | UnsetType:
    return UNSET if given is UNSET else msgspec.json.encode(given).decode()


def _changed(row: sites.SiteChange) -> SiteChanged:
    return SiteChanged(row.id, row.at, row.site_id, row.run_id, row.path, msgspec.Raw(row.change.encode()))


def site_spec(item: SiteInput) -> sites.SiteSpec:
    """As the store takes it."""
    given = {name: value for name, value in msgspec.structs.asdict(item).items() if value is not UNSET}
    if "group" in given:
        given["group_name"] = given.pop("group")
    if "attrs" in given:
        given["attrs"] = _attrs(given["attrs"])
    return sites.SiteSpec(**given)


def site_info(site: sites.Site) -> Site:
    owner = LockOwner(site.locked_run, site.locked_path) if site.locked_run is not None else None
    return Site(
        id=site.id,
        group=site.group_name,
        order_no=site.order_no,
        enabled=site.enabled,
        filled=site.filled,
        content=site.content,
        locked_by=owner,
        locked_text=site.locked_text,
        lane=site.lane,
        depth=site.depth,
        mouths=site.mouths,
        tags=site.tags,
        attrs=shown(site.attrs or "{}"),
        map_id=site.map_id,
        x=site.x,
        y=site.y,
        updated_at=site.updated_at,
    )
