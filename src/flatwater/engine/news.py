"""What other processes did: one query per process each ``poll_s``, never one per run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from time import monotonic, time
from typing import TYPE_CHECKING

import msgspec

from flatwater.errors import NotFoundError
from flatwater.store import run as runs
from flatwater.store import waiter as waiters
from flatwater.store.state import ENDED
from flatwater.store.waiter import Grant

if TYPE_CHECKING:
    from flatwater.engine.result import Results
    from flatwater.engine.scheduler import Scheduler
    from flatwater.store.store import Store
    from flatwater.store.tx import Tx

log = logging.getLogger(__name__)
RECHECK_S = 10.0
"""How often processes that died are looked for (with a short lease twice in it), and runs that were lost sight of."""


class News(msgspec.Struct, frozen=True):
    """``requests``: (run, cancel or pause); ``ready``: runs to claim; ``next_due``: the next time."""

    requests: list[tuple[str, str]]
    grants: list[Grant]
    ready: bool
    next_due: float | None


def news(tx: Tx, worker: str) -> News:
    """All that concerns this process, in one snapshot."""
    return News(
        requests=runs.requests(tx, worker),
        grants=waiters.granted(tx, worker),
        ready=runs.ready_count(tx, 1) > 0,
        next_due=runs.next_due(tx),
    )


class NewsLoop:
    """Asks the store and tells the scheduler."""

    def __init__(self, store: Store, scheduler: Scheduler, results: Results, poll_s: float) -> None:
        self._store = store
        self._scheduler = scheduler
        self._results = results
        self._poll_s = poll_s
        self._look_s = min(RECHECK_S, store.options.lease_s / 2)
        self._strays: set[tuple[str, int]] = set()

    async def run(self) -> None:
        looked = checked = monotonic()
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._ask()
                if monotonic() - looked > self._look_s:
                    looked = monotonic()
                    await self._take_over()
                if monotonic() - checked > RECHECK_S:
                    checked = monotonic()
                    await self._recheck()
            except Exception:
                log.exception("could not ask the store for news")

    async def _ask(self) -> None:
        scheduler, worker = self._scheduler, self._store.worker
        if worker is None:
            return  # on its way to become one again
        found = await self._store.read(news, worker)
        for run_id, request in found.requests:
            activation = scheduler.active.get(run_id)
            if activation is not None and (activation.stopping is None or request == "cancel"):
                activation.stop(request, at_once=request == "cancel", recorded=True)
        scheduler.granted(found.grants)
        if found.ready:
            scheduler.ready()
        if found.next_due is not None:
            scheduler.due(found.next_due)
        elsewhere = [run_id for run_id in self._results if run_id not in scheduler.active]
        if elsewhere:
            states = await self._store.read(runs.states, elsewhere)
            for run_id in elsewhere:
                if states.get(run_id) in ENDED:
                    with contextlib.suppress(NotFoundError):
                        await self._results.look(run_id)

    async def _take_over(self) -> None:
        """Take over from processes that died."""
        if await self._store.take_over(time()):
            self._scheduler.ready()

    async def _recheck(self) -> None:
        """Take back what this process holds in the store but not in its memory."""
        worker = self._store.worker
        if worker is None:
            return
        held = await self._store.read(runs.owned, worker)
        strays = {(run_id, epoch) for run_id, epoch in held if run_id not in self._scheduler.active}
        twice, self._strays = sorted(strays & self._strays), strays  # one on its way in or out is no stray twice
        if twice and (lost := await self._store.writer.call(runs.requeue, worker, twice)):
            log.error("runs %s were lost sight of; they go on", ", ".join(lost))
            self._scheduler.ready()
