"""What people ask of runs: cancel, pause, resume, retry, wherever the run is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from time import time
from typing import TYPE_CHECKING, Literal

from flatwater.engine.runner import Loaded, claim
from flatwater.errors import FlatwaterError
from flatwater.store import run as runs
from flatwater.store import site_regain
from flatwater.store import step as steps
from flatwater.store import waiter as waiters
from flatwater.store.run import Requested
from flatwater.store.state import State

if TYPE_CHECKING:
    from flatwater.engine.library import Library
    from flatwater.engine.result import Results
    from flatwater.engine.scheduler import Scheduler
    from flatwater.store.store import Store
    from flatwater.store.tx import Tx


class Steering:
    """Reaches a run in the memory of this process, of another one, or in the store."""

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        library: Library,
        results: Results,
        begin: Callable[[list[Loaded]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._library = library
        self._results = results
        self._begin = begin

    async def request(self, run_id: str, what: runs.Request) -> None:
        """Cancel or pause; returns when that is done, or when another process has been asked to.

        Raises ``NotFoundError``; ``ConflictError`` when the run has ended.
        """
        while (activation := self._scheduler.active.get(run_id)) is not None:
            reached = not activation.finishing
            activation.stop(what, at_once=what == "cancel")
            await activation.over()
            if reached:
                return
        worker = None if self._scheduler.stopping else self._store.worker
        requested, claimed = await self._store.writer.call(request, run_id, what, worker, time())
        self._scheduler.granted(requested.grants)
        if claimed:  # parked: it must wait for no place to clean up and to end
            await self._begin(claimed)
            activation = self._scheduler.active.get(run_id)
            if activation is not None:
                await activation.over()
        if requested.done:
            await self._results.look(run_id)
        else:
            self._scheduler.ready()

    async def decide(self, run_id: str, what: Decision) -> None:
        """Resume or retry. Raises ``NotFoundError``; ``ConflictError`` when the run is in no state for it."""
        row = await self._store.read(runs.get, run_id)
        blocks = await self._outside(row.hash) if row.state == State.NEEDS_OPERATOR else ()
        due_at = await self._store.writer.call(decide, run_id, what, blocks, time())
        if due_at is not None:
            self._scheduler.due(due_at)
        self._scheduler.ready()

    async def _outside(self, hash: str) -> Collection[int]:
        """The ids of the blocks of which a person must say whether they happened."""
        try:
            flow = await self._library.flow(hash)
        except FlatwaterError:
            return ()  # that is what it needs the operator for: no block of it has begun here
        return {node.id for node in flow.nodes if node.recovery == "operator"}


Decision = Literal["resume", "retry"]


def request(tx: Tx, run_id: str, what: runs.Request, worker: str | None, now: float) -> tuple[Requested, list[Loaded]]:
    """Ask for it; a parked run that is made ready for it is claimed at once, whatever queues."""
    requested = runs.request(tx, run_id, what, now)
    if requested.done or requested.worker is not None or worker is None:
        return requested, []
    return requested, claim(tx, 1, worker, now, run_id)


def decide(tx: Tx, run_id: str, what: Decision, blocks: Collection[int], now: float) -> float | None:
    """Resume or retry, with what a person thereby says of calls whose end nobody knew: that they did happen, or not.

    Returns when the run is due, if that is later.
    """
    if runs.get(tx, run_id).state == State.NEEDS_OPERATOR:
        settle(tx, run_id, State.SUCCEEDED if what == "resume" else State.FAILED, blocks, now)
    if what == "resume":
        runs.resume(tx, run_id, now)
    else:
        runs.retry(tx, run_id, now)
        site_regain.regain(tx, run_id, now)
    return runs.get(tx, run_id).due_at


def settle(tx: Tx, run_id: str, state: State, blocks: Collection[int], now: float) -> None:
    """Close the records of the calls in doubt; a block with a wait of its own knows how its call stands."""
    waiting = {waiter.path for waiter in waiters.load(tx, [run_id])[run_id]}
    for step in steps.load(tx, [run_id])[run_id]:
        in_doubt = step.state == State.RUNNING and step.order_id is not None and step.block_id in blocks
        if in_doubt and step.path not in waiting:
            tx.apply(
                steps.put(
                    run_id, step.path, step.block_id, step.name, step.type, state, step.attempt, step.started_at, now,
                    step.outputs, step.progress, step.order_id, step.error,
                )
            )  # fmt: skip
