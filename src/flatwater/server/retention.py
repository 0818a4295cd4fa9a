"""Deletes what is old, in small transactions, for as long as the server runs."""

from __future__ import annotations

import asyncio
import logging
import time

from flatwater.errors import StoreError
from flatwater.settings.model import RetentionSettings
from flatwater.store import Store, retention

log = logging.getLogger(__name__)


class Retention:
    """Prunes each ``period_s``; never more than ``max_batch`` rows in one transaction."""

    def __init__(self, store: Store, settings: RetentionSettings) -> None:
        self._store = store
        self._settings = settings

    async def run(self) -> None:
        """Prune until cancelled. A store that is in trouble is asked again a period later."""
        while True:
            await asyncio.sleep(self._settings.period_s)
            try:
                await self.prune()
            except StoreError as error:
                log.warning("what is old could not be deleted: %s", error)

    async def prune(self) -> int:
        """Delete all that is old now; the number of rows."""
        settings = self._settings
        keep = retention.Keep(
            max_age_s=settings.max_age_s,
            max_runs=settings.max_runs,
            max_site_changes=settings.max_site_changes,
            max_events=settings.max_events,
            unused_s=settings.unused_s,
        )
        total = 0
        while True:
            pruned = await self._store.writer.call(retention.prune, keep, time.time(), settings.max_batch)
            total += pruned.runs + pruned.contents + pruned.site_changes + pruned.events
            if pruned.done:
                return total
            await asyncio.sleep(0)
