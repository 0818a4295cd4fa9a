"""Storage sites: list, import, change by hand, and the log of changes."""

from __future__ import annotations

from time import time
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.base import MAX_ITEMS, Id, Page
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

table = Table("sites")

SiteInputs = Annotated[list[SiteInput], Meta(max_length=MAX_ITEMS)]


@table.add("GET", "/api/sites")
async def list_sites(service: Service, query: SiteQuery) -> SiteList:
    """The sites in their order, of one group or of all."""
    page = await service.store.read(sites.page, query.group, None, None, query.cursor, query.limit)
    items = [site_info(site) for site in page.items]
    groups = sorted({site.group for site in items if site.group is not None})
    return SiteList(items, groups, page.next)


@table.add("PUT", "/api/sites")
async def import_sites(service: Service, body: SiteInputs) -> Imported:
    """Create sites, or replace those of the same id. Whoever waits for one of them is offered it."""
    specs = [_spec(item) for item in body]
    service.engine.services.granted(await service.store.writer.call(sites.save, specs, time()))
    return Imported(len(specs))


@table.add("GET", "/api/sites/changes")
async def list_changes(service: Service, query: SiteChangeQuery) -> Page[SiteChanged]:
    """What happened to sites, newest first."""
    page = await service.store.read(sites.changes, query.site, query.cursor, query.limit)
    items = [
        SiteChanged(row.id, row.at, row.site_id, row.run_id, row.path, msgspec.Raw(row.change.encode()))
        for row in page.items
    ]
    return Page(items, page.next)


@table.add("GET", "/api/sites/{site_id:path}", errors=(404,))
async def get_site(service: Service, site_id: Id) -> Site:
    """One site."""
    return site_info(await service.store.read(sites.get, site_id))


@table.add("PATCH", "/api/sites/{site_id:path}", errors=(404, 409))
async def change_site(service: Service, site_id: Id, body: SiteChange) -> Site:
    """Change a site by hand. 409 when a run holds it; `locked: false` takes it away from that run first."""
    now = time()
    call, granted = service.store.writer.call, service.engine.services.granted
    if body.locked is not UNSET:
        granted(await call(sites.unlock, site_id, None, None, now))
    given = {name: getattr(body, name) for name in ("filled", "content", "enabled", "tags", "attrs")}
    granted(await call(sites.set, site_id, sites.Change(**given), None, None, now))
    return site_info(await service.store.read(sites.get, site_id))


def _spec(item: SiteInput) -> sites.SiteSpec:
    given = msgspec.structs.asdict(item)
    given["group_name"] = given.pop("group")
    return sites.SiteSpec(**given)


def site_info(site: sites.Site) -> Site:
    owner = LockOwner(site.locked_run, site.locked_path) if site.locked_run is not None else None
    return Site(
        id=site.id,
        group=site.group_name,
        order_no=site.order_no,
        enabled=bool(site.enabled),
        filled=bool(site.filled),
        content=site.content,
        locked_by=owner,
        locked_text=site.locked_text,
        lane=site.lane,
        depth=site.depth,
        mouths=site.mouths,
        tags=list(site.tags),
        attrs=dict(site.attrs),
        map_id=site.map_id,
        x=site.x,
        y=site.y,
        updated_at=site.updated_at,
    )
