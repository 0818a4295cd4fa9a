"""What happens in Small Hall without robots: trucks bring goods and take them away, the lines use them up.

Every step is one transaction on the sites that no run has locked, drawn from a seed of its own. How often something
came or went is counted in the attributes of the sites, in the same transaction, so the books always balance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

import msgspec

from flatwater.demo.hall import EMPTY_PALLET, SKUS
from flatwater.store import site as sites
from flatwater.store.site import Change, Site
from flatwater.store.tx import Tx
from flatwater.store.waiter import Grant

STEP_S = 5.0
"""Seconds of the simulated world between two steps."""
ARRIVAL, DEPARTURE, USE = 0.12, 0.2, 0.08
"""How probable it is in one step that a free IN site is filled, an OUT site emptied, a load used up at a line."""
PICK_UP = 4
"""A truck takes the empty pallets away when there are so many."""


class Tally(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A site's attributes in this plant: what it had on the first day, what came from outside, what left."""

    initial: int = 0
    arrived: int = 0
    left: int = 0


class Step(NamedTuple):
    """Pallets that came and left, and whom that helped."""

    arrived: int
    left: int
    grants: list[Grant]


def step(tx: Tx, seed: int, now: float) -> Step:
    """Let ``STEP_S`` seconds pass in the outside world."""
    chance = Random(seed)  # noqa: S311 - a simulation; made here because a transaction may be tried again
    arrived = left = 0
    grants: list[Grant] = []
    for site, content in _events(tx, chance):
        tally = tally_of(site)
        if content is not None and not site.filled:
            tally.arrived, arrived = tally.arrived + 1, arrived + 1
        elif content is None:
            tally.left, left = tally.left + 1, left + 1
        attrs = msgspec.json.encode(tally).decode()
        change = Change(filled=content is not None, content=content, attrs=attrs)
        grants += sites.set(tx, site.id, change, now)
    return Step(arrived, left, grants)


def _events(tx: Tx, chance: Random) -> Iterator[tuple[Site, str | None]]:
    """Sites with the content that they are to have."""
    for site in _free(tx, "IN"):
        if not site.filled and chance.random() < ARRIVAL:
            yield site, chance.choice(SKUS)
    for site in _free(tx, "OUT"):
        if site.filled and chance.random() < DEPARTURE:
            yield site, None
    for site in _free(tx, "LINE"):  # what was used up, or never brought, leaves an empty pallet behind
        if site.content != EMPTY_PALLET and chance.random() < USE:
            yield site, EMPTY_PALLET
    pallets = [site for site in _free(tx, "EMPTY") if site.filled]
    if len(pallets) >= PICK_UP:
        yield from ((site, None) for site in pallets)


def _free(tx: Tx, group: str) -> Iterable[Site]:
    return [site for site in sites.page(tx, group, False, None, None, 100) if site.enabled]


def tally_of(site: Site) -> Tally:
    try:
        return msgspec.json.decode(site.attrs or "{}", type=Tally)
    except msgspec.MsgspecError:  # somebody has changed it by hand
        return Tally()
