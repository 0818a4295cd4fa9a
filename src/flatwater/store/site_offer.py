"""Offering: a site that changed goes to the first waiter, by rank and then by arrival, whom it suits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
from sqlalchemy import bindparam, select, tuple_

from flatwater.store import schema, site_find, site_write, waiter
from flatwater.store.site_lane import reachable
from flatwater.store.site_match import keys_for, suits
from flatwater.store.site_record import Site, Want
from flatwater.store.tx import Query, Tx
from flatwater.store.waiter import Grant

_w = schema.waiter
_want = msgspec.json.Decoder(Want)
_CHUNKS = (2, 20, 200)  # most often the first of a queue is eligible
_PLACE = (_w.c.rank, _w.c.since, _w.c.run_id, _w.c.path)
_HEAD = (
    select(*_PLACE, _w.c.want)
    .where(_w.c.kind == "site", _w.c.key == bindparam("wanted"), _w.c.granted.is_(None))
    .order_by(*_PLACE)
    .limit(bindparam("count"))
)
_FIRST = Query(_HEAD)
_NEXT = Query(
    _HEAD.where(
        _w.c.rank >= bindparam("last_rank"),  # lets the index seek; the tuple decides
        tuple_(*_PLACE) > tuple_(*(bindparam(f"last_{column.name}", type_=column.type) for column in _PLACE)),
    )
)


class Place(NamedTuple):
    """Where a waiter stands; the least is first."""

    rank: float
    since: float
    run_id: str
    path: str


class Offer(NamedTuple):
    """A site that may be had now; `mouth` when by the rules of its lane."""

    site: Site
    mouth: int | None


def offer(tx: Tx, site_ids: Iterable[str], now: float) -> list[Grant]:
    """Offer sites that changed, in site order, until nobody eligible waits for them. A site that is only looked at
    goes on to the next. What changed in a lane may make another of its cells the one to be had."""
    gifts: list[tuple[str, str, str]] = []
    for site in site_find.many(tx, dict.fromkeys(site_ids)):
        while (match := _first_match(tx, site.id)) is not None:
            place, want, found = match
            if want.claims:
                site_write.lock(tx, found.site, place.run_id, place.path, now, want.text, found.mouth)
            granted = msgspec.json.encode({"siteId": found.site.id}).decode()
            gifts.append((place.run_id, place.path, granted))
            waiter.mark(tx, place.run_id, place.path, granted)
    return waiter.waken(tx, gifts)


def _first_match(tx: Tx, site_id: str) -> tuple[Place, Want, Offer] | None:
    """The first of all waiters for whom there is something at this site or in its lane."""
    matches = [
        (*found, Offer(site, mouth))
        for site, mouth, keys in _offers(tx, site_id)
        for key in keys
        if (found := _first_eligible(tx, key, site)) is not None
    ]
    return min(matches, key=lambda match: match[0], default=None)


def _offers(tx: Tx, site_id: str) -> Iterator[tuple[Site, int | None, list[str]]]:
    site = site_find.get(tx, site_id)
    if site.enabled:
        yield site, None, keys_for(site, lane=False)
    if site.lane is not None:
        for cell, mouth in reachable(site_find.cells(tx, site.lane)):
            yield cell, mouth, keys_for(cell, lane=True)


def _first_eligible(tx: Tx, key: str, site: Site) -> tuple[Place, Want] | None:
    for place, want in _queue(tx, key):
        if suits(want, site):
            return place, want
    return None


def _queue(tx: Tx, key: str) -> Iterator[tuple[Place, Want]]:
    """Those filed under a key, in their order, fetched in chunks that grow."""
    sizes = iter(_CHUNKS)
    count = next(sizes)
    rows = tx.all(_FIRST, wanted=key, count=count)
    while rows:
        for *place, text in rows:
            yield Place(*place), _want.decode(text or "{}")
        if len(rows) < count:
            return
        count = next(sizes, _CHUNKS[-1])
        rank, since, run_id, path = rows[-1][:4]
        rows = tx.all(
            _NEXT, wanted=key, count=count, last_rank=rank, last_since=since, last_run_id=run_id, last_path=path
        )
