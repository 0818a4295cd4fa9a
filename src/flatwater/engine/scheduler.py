"""Which runs are in memory: claims by rank, wakes at due times, makes room, gives everything back.

Pending work lives in the store; here is only a window of ``max_active`` activations. All that is
kept of a run leaves with its activation, by the ``finally`` of the task that advances it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from time import time
from typing import TYPE_CHECKING

import msgspec

from flatwater.engine.runner import Loaded, claim
from flatwater.store import run as runs

if TYPE_CHECKING:
    from flatwater.engine.activation import Activation
    from flatwater.engine.option import EngineOptions
    from flatwater.store.store import Store
    from flatwater.store.waiter import Grant

log = logging.getLogger(__name__)
STUBBORN_S = 10.0
"""How long a canceled block may take to end before its run is given up."""
PROMOTE = 1_000
"""Runs whose time has come that one transaction makes claimable."""


class SchedulerStatistics(msgspec.Struct, frozen=True):
    """``active`` runs in memory (of ``max_active``), of them ``idle``; totals since the start."""

    active: int
    max_active: int
    idle: int
    claimed: int
    parked: int
    backlog: bool


class Scheduler:
    """Keeps the window of activations full with the runs that rank first."""

    def __init__(
        self,
        store: Store,
        options: EngineOptions,
        begin: Callable[[list[Loaded]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._options = options
        self._begin = begin
        self.active: dict[str, Activation] = {}
        self._idle: dict[str, Activation] = {}
        self._reserved = 0
        self._backlog = True
        self._arrived = False
        self._next_due: float | None = 0.0
        self._nudge = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = self._held = False
        self._claimed = 0
        self._parked = 0

    # ---- the window -----------------------------------------------------------------------------

    @property
    def room(self) -> int:
        return self._options.max_active - len(self.active) - self._reserved

    @property
    def stopping(self) -> bool:
        """Whether no run may be taken into memory, for now or for good."""
        return self._stopping or self._held

    def reserve(self) -> bool:
        """Take a place for a run that is about to be stored as RUNNING; false when others are first."""
        if self._backlog or self.stopping or self.room <= 0:
            return False
        self._reserved += 1
        return True

    def unreserve(self) -> None:
        self._reserved -= 1

    def entered(self, activation: Activation) -> None:
        self.active[activation.id] = activation
        if self.stopping:  # it was on its way when everybody was told to leave
            activation.stop("release", at_once=False)

    def left(self, activation: Activation) -> None:
        """The activation is over; somebody else may have its place."""
        if self.active.get(activation.id) is activation:
            del self.active[activation.id]
        self.busy(activation)
        if self._backlog:
            self._nudge.set()

    def idle(self, activation: Activation) -> None:
        """Everything in this run waits: it could leave memory at once if others queue."""
        self._idle[activation.id] = activation
        if self._backlog and self.room <= 0:
            self._nudge.set()

    def busy(self, activation: Activation) -> None:
        if self._idle.get(activation.id) is activation:
            del self._idle[activation.id]

    # ---- what happens elsewhere -----------------------------------------------------------------

    def ready(self) -> None:
        """There may be runs to claim."""
        self._backlog = self._arrived = True
        self._nudge.set()

    def due(self, at: float) -> None:
        """A run will be due at ``at``."""
        if self._next_due is None or at < self._next_due:
            self._next_due = at
            self._arm()
        elif self._next_due <= time():  # the clock was set: timers do not follow it
            self._nudge.set()

    def abandoned(self, run_id: str) -> None:
        """Whoever waited for this run is asking it to cancel; one that is not here is found when it is ready."""
        activation = self.active.get(run_id)
        if activation is not None:
            activation.stop("cancel", at_once=True, recorded=True)

    def granted(self, grants: Iterable[Grant]) -> None:
        """Waits were granted by a transaction that has been committed."""
        for grant in grants:
            activation = self.active.get(grant.run_id)
            if activation is not None:
                activation.waits.wake(grant.path, msgspec.json.decode(grant.granted), grant.since)
            else:
                self.ready()

    # ---- the loop -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and promote for as long as the engine runs."""
        self._nudge.set()
        while not self._stopping:
            await self._nudge.wait()
            self._nudge.clear()
            try:
                await self._promote()
                await self._fill()
            except Exception:
                log.exception("could not claim runs; trying again in a second")
                await asyncio.sleep(1.0)
                self._next_due = 0.0  # what was known of it may be lost
                self._nudge.set()

    async def _promote(self) -> None:
        while self._next_due is not None and self._next_due <= time():
            promoted = await self._store.writer.call(runs.promote_due, time(), PROMOTE)
            if promoted:
                self._backlog = True
            if promoted < PROMOTE:
                self._next_due = None  # `due` may be told of an earlier one while we ask
                found = await self._store.writer.call(runs.next_due)
                if found is not None:
                    self.due(found)
        self._arm()  # even if nothing was due: timers may ring a moment early

    async def _fill(self) -> None:
        while self._backlog and not self.stopping:
            wanted = self.room
            if wanted <= 0:
                self._make_room()
                return
            self._arrived = False
            worker = self._store.worker
            assert worker is not None, "the engine has joined the store"
            claimed = await self._store.writer.call(claim, wanted, worker, time())
            self._claimed += len(claimed)
            self._backlog = self._arrived or len(claimed) == wanted
            if claimed:
                await self._begin(claimed)

    def _make_room(self) -> None:
        for activation in list(self._idle.values()):
            activation.waits.park()
            self._parked += 1

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next_due is not None and not self._stopping:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._next_due - time()), self._ring)

    def _ring(self) -> None:
        """Timers may be early (uvloop's by a millisecond, any by a clock that was set): then wait for the rest."""
        if self._next_due is not None and self._next_due > time():
            self._arm()
        else:
            self._nudge.set()

    # ---- the end --------------------------------------------------------------------------------

    def stop_claiming(self) -> None:
        self._stopping = True
        self._nudge.set()
        if self._timer is not None:
            self._timer.cancel()

    async def drain(self, timeout_s: float) -> None:
        """Let blocks that execute end, within ``timeout_s``; then every run is given back."""
        self.stop_claiming()
        for activation in list(self.active.values()):
            activation.stop("release", at_once=False)
        await self._gone(timeout_s)
        await self._leave()

    async def leave_all(self) -> None:
        """Take every run out of memory at once, and no other in before `go_on`."""
        self._held = True
        await self._leave()

    def go_on(self) -> None:
        self._held = False
        self.ready()

    async def _leave(self) -> None:
        for activation in list(self.active.values()):
            activation.stop("release", at_once=True)
        await self._gone(STUBBORN_S)
        for run_id in self.active:
            text = "a block of run %s does not heed its cancellation; the run is left to whoever claims it"
            log.error(text, run_id, extra={"run_id": run_id})

    async def _gone(self, timeout_s: float) -> None:
        until = time() + timeout_s
        while tasks := [each.task for each in self.active.values() if each.task is not None and not each.task.done()]:
            _, running = await asyncio.wait(tasks, timeout=max(0.0, until - time()))
            if running:
                return

    def statistics(self) -> SchedulerStatistics:
        return SchedulerStatistics(
            len(self.active), self._options.max_active, len(self._idle), self._claimed, self._parked, self._backlog
        )
