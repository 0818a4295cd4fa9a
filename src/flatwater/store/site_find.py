"""Reading sites: by id, by owner, by lane, and the best one for a want."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import bindparam, select

from flatwater.errors import NotFoundError
from flatwater.store import schema
from flatwater.store.dialect import members
from flatwater.store.site_lane import reachable
from flatwater.store.site_match import suits
from flatwater.store.site_record import Site, SiteChange, Want
from flatwater.store.tx import Query, Tx

_s, _c = schema.site, schema.site_change
_FIELDS = Site.__struct_fields__
_COLUMNS = [_s.c[name] for name in _FIELDS]
_FLAGS = (_FIELDS.index("enabled"), _FIELDS.index("filled"))
_TAGS = _FIELDS.index("tags")
_CHUNK = 50
_tags = msgspec.json.Decoder(tuple[str, ...])

_GET = Query(select(*_COLUMNS).where(_s.c.id == bindparam("site_id")))
_MANY = Query(select(*_COLUMNS).where(members(_s.c.id, "ids")))
_HELD = Query(select(*_COLUMNS).where(_s.c.locked_run == bindparam("owner")).order_by(_s.c.order_no, _s.c.sort_key))
_CELLS = Query(select(*_COLUMNS).where(_s.c.lane == bindparam("lane")).order_by(_s.c.depth))
_LANES = select(_s.c.lane).where(_s.c.lane.is_not(None)).distinct().order_by(_s.c.lane)
_ALL_LANES = Query(_LANES)
_LANES_OF = Query(_LANES.where(members(_s.c.group_name, "groups")))


def site(row: tuple[Any, ...]) -> Site:
    fields = list(row)
    for index in _FLAGS:
        fields[index] = bool(fields[index])
    fields[_TAGS] = _tags.decode(fields[_TAGS]) if fields[_TAGS] else ()
    return Site(*fields)


def get(tx: Tx, site_id: str) -> Site:
    """Raises NotFoundError."""
    row = tx.first(_GET, site_id=site_id)
    if row is None:
        raise NotFoundError(f"site {site_id!r}")
    return site(row)


def many(tx: Tx, ids: Iterable[str]) -> list[Site]:
    """Those that exist, in site order."""
    return sorted(map(site, tx.all(_MANY, ids=list(ids))), key=lambda found: found.order)


def held(tx: Tx, run_id: str) -> list[Site]:
    """The sites that a run has locked, in site order."""
    return [site(row) for row in tx.all(_HELD, owner=run_id)]


def cells(tx: Tx, lane: str) -> list[Site]:
    """A lane's cells from mouth 1 inwards."""
    return [site(row) for row in tx.all(_CELLS, lane=lane)]


def best(tx: Tx, want: Want) -> tuple[Site, int | None] | None:
    """The first suitable site in the wanted order, with the mouth to use when found by lane rules."""
    if want.dense:
        return _best_cell(tx, want)
    if want.site_id is not None:
        row = tx.first(_GET, site_id=want.site_id)
        return (site(row), None) if row is not None and suits(want, site(row)) else None
    for found in _candidates(tx, want):
        if suits(want, found):
            return found, None
    return None


def _best_cell(tx: Tx, want: Want) -> tuple[Site, int | None] | None:
    names = tx.all(_LANES_OF, groups=list(want.groups)) if want.groups else tx.all(_ALL_LANES)
    offers = [offer for (name,) in names for offer in reachable(cells(tx, name)) if suits(want, offer[0])]
    offers.sort(key=lambda offer: offer[0].order, reverse=want.order == "desc")
    return offers[0] if offers else None


def _candidates(tx: Tx, want: Want) -> Iterator[Site]:
    given: dict[str, Any] = {"count": _CHUNK, "skip": 0}
    if len(want.groups) == 1:
        given["group"] = want.groups[0]
    elif want.groups:
        given["groups"] = list(want.groups)
    for name in ("content", "map_id"):
        if getattr(want, name) is not None:
            given[name] = getattr(want, name)
    if want.filled is not None:
        given["filled"] = int(want.filled)
    query = _search(frozenset(given), want.locked, want.dense, want.order)
    while True:
        rows = tx.all(query, **given)
        yield from map(site, rows)
        if len(rows) < _CHUNK:
            return
        given["skip"] += _CHUNK


@lru_cache(maxsize=256)
def _search(given: frozenset[str], locked: bool | None, dense: bool | None, order: str) -> Query:
    """One statement per shape of want. Ordered by the index of a group when a single group is wanted."""
    query = select(*_COLUMNS).where(_s.c.enabled == 1)
    if "group" in given:
        query = query.where(_s.c.group_name == bindparam("group"))
    if "groups" in given:
        query = query.where(members(_s.c.group_name, "groups"))
    for name in ("filled", "content", "map_id"):
        if name in given:
            query = query.where(_s.c[name] == bindparam(name))
    if locked is not None:
        query = query.where(_s.c.locked_run.is_not(None) if locked else _s.c.locked_run.is_(None))
    if dense is not None:
        query = query.where(_s.c.lane.is_(None))  # wants by lane rules do not come here
    ordered = (_s.c.order_no, _s.c.sort_key)
    by = [column.desc() for column in ordered] if order == "desc" else list(ordered)
    return Query(query.order_by(*by).limit(bindparam("count")).offset(bindparam("skip")))


def page(
    tx: Tx,
    group: str | None = None,
    locked: bool | None = None,
    filled: bool | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[Site]:
    """Sites in site order, those after the site with id `after` (which must exist)."""
    query = select(*_COLUMNS).order_by(_s.c.order_no, _s.c.sort_key, _s.c.id).limit(limit)
    if group is not None:
        query = query.where(_s.c.group_name == group)
    if locked is not None:
        query = query.where(_s.c.locked_run.is_not(None) if locked else _s.c.locked_run.is_(None))
    if filled is not None:
        query = query.where(_s.c.filled == int(filled))
    if after is not None:
        number, key = get(tx, after).order
        later = (_s.c.sort_key > key) | ((_s.c.sort_key == key) & (_s.c.id > after))
        query = query.where((_s.c.order_no > number) | ((_s.c.order_no == number) & later))
    return [site(row) for row in tx.all(query)]


def changes(tx: Tx, site_id: str | None = None, after: int | None = None, limit: int = 50) -> list[SiteChange]:
    """What changed, newest first, those before the id `after`."""
    query = select(*[_c.c[name] for name in SiteChange.__struct_fields__]).order_by(_c.c.id.desc()).limit(limit)
    if site_id is not None:
        query = query.where(_c.c.site_id == site_id)
    if after is not None:
        query = query.where(_c.c.id < after)
    return [SiteChange(*row) for row in tx.all(query)]
