"""Live events of sites and robots.

Those of sites are read from the log of changes: whoever changed them, in this process or another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import msgspec

from flatwater.bounded import Fanout
from flatwater.engine.driver import DriverEvent, Listener, RobotChanged
from flatwater.errors import NotFoundError, StoreError
from flatwater.server.api.robot import robot_info
from flatwater.server.api.site import site_info
from flatwater.store import Store
from flatwater.store import site as sites
from flatwater.store.tx import Tx

log = logging.getLogger(__name__)

MAX_CHANGES = 500
"""Changes between two looks; when there are more, subscribers are told of a gap instead."""


class SiteNews:
    """Looks each ``period_s``, as long as somebody listens: one small query."""

    def __init__(self, store: Store, events: Fanout[dict[str, Any]], period_s: float) -> None:
        self._store = store
        self._events = events
        self._period_s = period_s
        self._seen: int | None = None
        self._idle_at = time.time()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            if not self._events.wanted:
                self._seen, self._idle_at = None, time.time()
                continue
            try:
                await self._look()
            except StoreError as error:
                log.warning("changes of sites could not be read: %s", error)

    async def _look(self) -> None:
        self._seen, changed, missed = await self._store.read(_changed_since, self._seen, self._idle_at)
        if missed:
            self._events.publish({"type": "gap", "missed": None})
        for site in changed:
            self._events.publish({"type": "site", **msgspec.structs.asdict(site_info(site))})


def _changed_since(tx: Tx, seen: int | None, idle_at: float) -> tuple[int, list[sites.Site], bool]:
    """The latest change, the sites changed after ``seen`` (None: since ``idle_at``), whether some were too many."""
    newest = sites.changes(tx, None, None, 1)
    latest = newest[0].id if newest else 0
    if seen is not None and latest <= seen:
        return latest, [], False
    rows = [
        row
        for row in sites.changes(tx, None, None, MAX_CHANGES)
        if (row.id > seen if seen is not None else row.at >= idle_at)
    ]
    found: list[sites.Site] = []
    for site_id in dict.fromkeys(row.site_id for row in reversed(rows)):
        with contextlib.suppress(NotFoundError):
            found.append(sites.get(tx, site_id))
    return latest, found, len(rows) == MAX_CHANGES


def robot_news(events: Fanout[dict[str, Any]]) -> Listener:
    """What a driver is to call: tells subscribers of every change of a robot."""

    def tell(event: DriverEvent) -> None:
        if isinstance(event, RobotChanged) and events.wanted:
            events.publish({"type": "robot", **msgspec.structs.asdict(robot_info(event.robot))})

    return tell
