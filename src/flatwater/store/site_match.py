"""Which site suits which want: pure functions.

A waiting want is filed under one key made of its equalities (group, id, filled, content), so that a site that comes
free needs to look under a handful of keys only, however many wait; tags and maps are checked one by one.
"""

from __future__ import annotations

import hashlib
import re
from itertools import product

import msgspec

from flatwater.store.site_record import Site, Want

_DIGITS = re.compile(r"\d+")
_MAX_KEY = 255
_ANY = "*"


def natural_key(site_id: str) -> str:
    """A text that sorts as people count: digits are padded, so A_2 comes before A_10."""
    return _DIGITS.sub(lambda match: match.group().lstrip("0").rjust(12, "0"), site_id)[:_MAX_KEY]


def suits(want: Want, site: Site) -> bool:
    """Whether this site will do, apart from the rules of lanes."""
    return (
        site.enabled
        and (want.site_id is None or want.site_id == site.id)
        and (not want.groups or site.group_name in want.groups)
        and (want.filled is None or want.filled == site.filled)
        and (want.content is None or want.content == site.content)
        and (want.locked is None or want.locked == (site.locked_run is not None))
        and (want.dense is None or want.dense == (site.lane is not None))
        and (want.map_id is None or want.map_id == site.map_id)
        and set(want.tags) <= set(site.tags)
    )


def compete(want: Want, ahead: Want) -> bool:
    """Whether the one who is `ahead` may take a site that `want` would be given, as far as the wants tell.

    Tags are no distinction: a site may have them all. Who only looks takes nothing, and what is locked is not taken.
    """
    either = (
        (want.site_id, ahead.site_id), (want.filled, ahead.filled), (want.content, ahead.content),
        (want.dense, ahead.dense), (want.map_id, ahead.map_id),
    )  # fmt: skip
    return (
        ahead.claims
        and want.locked is False
        and all(mine is None or its is None or mine == its for mine, its in either)
        and (not want.groups or not ahead.groups or not set(want.groups).isdisjoint(ahead.groups))
    )


def compete_under_key(want: Want, ahead: Want) -> bool:
    """Whether `want` may compete with any that is filed under the same key as `ahead`."""
    groups = ahead.groups if len(ahead.groups) == 1 else ()
    dense = True if ahead.dense else None
    return compete(want, msgspec.structs.replace(ahead, groups=groups, dense=dense, map_id=None, lock=True))


def key_of(want: Want) -> str:
    """The key under which a waiter with this want is filed."""
    group = _exactly(want.groups[0] if len(want.groups) == 1 else None)
    if want.locked is not False:
        return _key("look", group)
    kind = "lane" if want.dense else "site"
    return _key(kind, group, _exactly(want.site_id), _filled(want.filled), _exactly(want.content))


def keys_for(site: Site, *, lane: bool) -> list[str]:
    """All keys under which wants may be filed that this site suits: by lane rules, or as a site like others."""
    groups = _either(site.group_name)
    keys = [] if lane else [_key("look", group) for group in groups]
    if site.locked_run is None:
        kind = "lane" if lane else "site"
        parts = product(groups, _either(site.id), (_filled(site.filled), _ANY), _either(site.content))
        keys += [_key(kind, *part) for part in parts]
    return keys


def _exactly(value: str | None) -> str:
    return _ANY if value is None else f"={value}"


def _either(value: str | None) -> tuple[str, ...]:
    return (_ANY,) if value is None else (f"={value}", _ANY)


def _filled(value: bool | None) -> str:
    return _ANY if value is None else "full" if value else "empty"


def _key(*parts: str) -> str:
    key = "|".join(part.replace("|", "||") for part in parts)
    return key if len(key) <= _MAX_KEY else hashlib.sha256(key.encode()).hexdigest()
