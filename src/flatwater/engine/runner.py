"""Makes activations of claimed runs, advances them, and writes down how they left memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.engine.activation import Activation
from flatwater.engine.context import ContextWatch
from flatwater.engine.current import RUN_ID
from flatwater.engine.definition import Retry
from flatwater.engine.ending import Ending, failed, stopped
from flatwater.engine.journal import Memory, dump
from flatwater.engine.library import CALL, CALL_BLOCK
from flatwater.engine.signal import BlockFailed, BranchStopped, OperatorNeeded, Parked, Signal
from flatwater.errors import ClosedError, FencedError, FlatwaterError, LimitError, StoreError
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store import site_regain
from flatwater.store import step as steps
from flatwater.store import variable as variables
from flatwater.store import waiter as waiters
from flatwater.store.state import State
from flatwater.store.waiter import Grant

if TYPE_CHECKING:
    from flatwater.engine.definition import Flow
    from flatwater.engine.figure import Figures
    from flatwater.engine.library import Library
    from flatwater.engine.scheduler import Scheduler
    from flatwater.engine.service import Services
    from flatwater.store.run import Claimed
    from flatwater.store.statement import Op
    from flatwater.store.tx import Tx

log = logging.getLogger(__name__)
LATER_S = 1.0
"""After this time a run is tried again that could not be begun for want of something other than its definition."""

Loaded = tuple["Claimed", Any]
"""A claimed run, with the records of its steps, variables and waiters if it was in memory before."""


def claim(tx: Tx, limit: int, worker: str, now: float, only: str | None = None) -> list[Loaded]:
    """Claim runs (or ``only`` this one), with the records of those that were in memory before, in one transaction.

    In one, because a wait granted afterwards then finds the activation and cannot be missed.
    """
    rows = runs.claim(tx, limit, worker, now, only)
    again = [row.id for row in rows if row.activated]
    if not again:
        return [(row, None) for row in rows]
    records = steps.load(tx, again), variables.load(tx, again), waiters.load(tx, again)
    return [(row, tuple(record.get(row.id) for record in records) if row.activated else None) for row in rows]


def try_again(tx: Tx, run_id: str, again: Op) -> None:
    """The next attempt of a run starts at the block that failed: its record goes."""
    steps.forget_failed(tx, run_id)
    tx.apply(again)


def end_and_release(tx: Tx, run_id: str, ops: list[Op], now: float, retryable: bool) -> list[Grant]:
    """No lock outlives its run, not even for a moment; what a retry would need is noted."""
    if retryable:
        site_regain.remember(tx, run_id)
    tx.apply(*ops)
    return sites.release(tx, run_id, now)


class Runner:
    """Advances runs; ``on_left`` hears of every activation that left memory, after the commit."""

    def __init__(
        self,
        services: Services,
        library: Library,
        scheduler: Scheduler,
        contexts: ContextWatch,
        figures: Figures,
        on_left: Callable[[Activation, Ending], None],
    ) -> None:
        self._services = services
        self._library = library
        self._scheduler = scheduler
        self._contexts = contexts
        self._figures = figures
        self._on_left = on_left

    async def begin(self, claimed: Iterable[Loaded]) -> None:
        """Start an activation for each claimed run; one that cannot start is recorded as such and holds up nobody."""
        worker = self._services.store.worker
        for row, records in claimed:
            try:
                flow = self._library.cached(row.hash) or await self._library.flow(row.hash)
                if self._services.store.worker != worker:
                    return  # another process has taken these over meanwhile
                self.start(row, flow, records)
            except (StoreError, LimitError) as error:
                log.warning("run %s cannot begin now: %s", row.id, error, extra={"run_id": row.id})
                await self._give_back(row)
            except Exception as error:
                if not isinstance(error, FlatwaterError):
                    log.exception("run %s cannot begin", row.id, extra={"run_id": row.id})
                await self._refuse(row, records, error)

    def start(self, row: Claimed, flow: Flow, records: Any = None) -> None:
        memory = None
        if records is not None:
            rows, values, waiting = records
            memory = Memory(rows or (), values or {}, waiting or (), flow.live_names)
        self._figures.began(row, time())
        activation = Activation(self._services, row, flow, memory)
        activation.task = self._services.tasks.start(self._advance(activation), name=row.id, context=row.label)
        self._scheduler.entered(activation)

    async def _give_back(self, row: Claimed) -> None:
        due_at = time() + LATER_S
        await self._services.store.writer.put(runs.again(row.id, row.epoch, row.attempt, due_at, row.rank))
        self._scheduler.due(due_at)

    async def _refuse(self, row: Claimed, records: Any, error: Exception) -> None:
        """The definition cannot be compiled here (a block kind is not registered): a person must look."""
        if row.request == "cancel":
            waiting = records[2] or () if records is not None else ()
            drops = [waiters.delete(row.id, waiter.path) for waiter in waiting]
            await self._close(row, stopped("cancel"), drops, releases=row.locked)
            return
        text = f"cannot run here: {error}"
        wait = dump([{"path": "-1", "kind": "operator", "key": row.id, "reason": text, "since": time()}])
        await self._services.store.writer.put(runs.park(row.id, row.epoch, State.NEEDS_OPERATOR, wait))

    # ---- one activation -------------------------------------------------------------------------

    async def _advance(self, activation: Activation) -> None:
        RUN_ID.set(activation.id)  # in the task's own context
        activation.begun = True
        reference = self._contexts.born(activation.id, activation.context)
        try:
            with self._services.spans.run(activation.row) as span:
                ending = await self._walk(activation)
                span.ended(ending.state, ending.error)
                activation.finishing = True
                await self._finish(activation, ending)
        except (FencedError, ClosedError) as error:
            log.warning("run %s left memory without a record: %s", activation.id, error)
            return
        finally:
            activation.waits.close()
            activation.branches.close()
            self._contexts.ended(reference)
            self._scheduler.left(activation)
        self._on_left(activation, ending)

    async def _walk(self, activation: Activation) -> Ending:
        row, flow = activation.row, activation.flow
        if row.request is not None:
            if row.request != "cancel" or not cleans_up(flow):
                return stopped(row.request)
            activation.stop("cancel", at_once=False, recorded=True)  # what is found begun cleans up
            return await self._outcome(activation)
        if row.deadline_at is None:
            return await self._outcome(activation)
        left_s = row.deadline_at - time()
        if left_s <= 0:
            return stopped("timeout")
        timer = asyncio.get_running_loop().call_later(left_s, _expire, activation)
        try:
            return await self._outcome(activation)
        finally:
            timer.cancel()

    async def _outcome(self, activation: Activation) -> Ending:
        """Walk, and turn whatever ends the walk into an ending."""
        try:
            await activation.walk()
            return Ending(State.SUCCEEDED, outputs=self._outputs(activation))
        except Parked:
            return self._parked(activation)
        except OperatorNeeded as need:
            return Ending(State.NEEDS_OPERATOR, error=str(need), error_path=need.path)
        except BlockFailed as failure:
            retry = retry_policy(activation)
            return failed(failure, activation.row.attempt, retry, time())
        except BranchStopped:  # the record of a cancel that the process did not live to finish
            return stopped("cancel")
        except asyncio.CancelledError:
            if activation.stopping is None:
                activation.stopping = "release"
            return stopped(activation.stopping)
        except (FencedError, ClosedError):
            raise
        except (Exception, Signal) as error:
            log.exception("run %s: the engine itself failed", activation.id)
            return Ending(State.FAILED, error=f"internal error: {error!r}", error_kind=type(error).__name__)

    def _outputs(self, activation: Activation) -> dict[str, Any]:
        if activation.row.hash.startswith(CALL):
            return activation.context.blocks.get(CALL_BLOCK, {})
        try:
            return activation.flow.outputs.evaluate(activation.context.scope)
        except FlatwaterError as error:
            raise BlockFailed("-1", "outputParams", str(error), type(error).__name__) from None

    def _parked(self, activation: Activation) -> Ending:
        if activation.stopping is not None and activation.stopping != "release":
            return stopped(activation.stopping)
        if activation.halted or (activation.stopping == "release" and not activation.waits.touched):
            return stopped("release")  # a branch could go on at once
        dues = [due for due in (activation.waits.due_at(), activation.row.deadline_at) if due is not None]
        return Ending(State.WAITING, due_at=min(dues, default=None))

    # ---- the record of the end ------------------------------------------------------------------

    async def _finish(self, activation: Activation, ending: Ending) -> None:
        """Write how the run left memory; return when that is durable."""
        row, put = activation.row, self._services.store.writer.put
        if ending.ended:
            await self._end(activation, ending)
        elif ending.state == State.QUEUED and ending.due_at is not None:
            rank = ending.due_at - row.priority * self._services.options.ageing_s
            again = runs.again(
                row.id, row.epoch, row.attempt + 1, ending.due_at, rank,
                ending.error, ending.error_path, ending.error_kind,
            )  # fmt: skip
            await self._services.store.writer.call(try_again, row.id, again)
            self._scheduler.due(ending.due_at)
        elif ending.state == State.QUEUED:
            now = time()
            await put(runs.again(row.id, row.epoch, row.attempt, now, row.rank))
            self._scheduler.due(now)
        else:
            await self._park(activation, ending)

    async def _park(self, activation: Activation, ending: Ending) -> None:
        row = activation.row
        wait = activation.waits.summary()
        if ending.state == State.NEEDS_OPERATOR:
            wait = [
                {"path": ending.error_path, "kind": "operator", "key": row.id, "reason": ending.error, "since": time()}
            ]
        walked = ending.state == State.WAITING and activation.stopping is None  # else branches were not come to
        left_over = activation.waits.left_over() if walked else []
        ops = activation.journal.drop(left_over)
        ops += [waiters.taken(row.id, path) for path in activation.waits.taken()]
        ops.append(runs.park(row.id, row.epoch, ending.state, dump(wait), ending.due_at))
        await self._services.store.writer.put(*ops)
        if ending.due_at is not None:
            self._scheduler.due(ending.due_at)
        self._scheduler.ready()

    async def _end(self, activation: Activation, ending: Ending) -> None:
        releases = activation.holds_sites and self._releases(activation, ending)
        drops = activation.journal.drop(activation.waits.rows())
        await self._close(activation.row, ending, drops, releases=releases)
        if activation.used_robot and self._services.robots is not None:
            await self._services.robots.release_run(activation.id)

    async def _close(self, row: Claimed, ending: Ending, drops: list[Op], *, releases: bool) -> None:
        """Record the end of a run, with all that it leaves, in one transaction; then tell its parent."""
        writer = self._services.store.writer
        outputs = dump(ending.outputs) if ending.outputs else None
        facts = (ending.state, time(), outputs, ending.error, ending.error_path, ending.error_kind)
        ops = [runs.end(row.id, row.epoch, *facts), *drops]
        grants = []
        if row.parent_id is not None and row.parent_path is not None:
            text = waiters.outcome(ending.state, outputs, ending.error, ending.error_kind)
            grants.append(Grant(row.parent_id, row.parent_path, text, None))
            ops.extend(waiters.child_ended(row.id, row.parent_id, text))
        if releases:
            grants += await writer.call(end_and_release, row.id, ops, time(), ending.state != State.SUCCEEDED)
        else:
            await writer.put(*ops)
        self._scheduler.granted(grants)

    def _releases(self, activation: Activation, ending: Ending) -> bool:
        policy = activation.flow.release
        return policy == "always" or (policy == "failure" and ending.state != State.SUCCEEDED)


def retry_policy(activation: Activation) -> Retry | None:
    """What the submission said of retries, else what the definition says."""
    policy = msgspec.json.decode(activation.row.policy) if activation.row.policy else {}
    stated = policy.get("retry")
    return Retry(**stated) if stated else activation.flow.retry


def cleans_up(flow: Flow) -> bool:
    """Whether a cancel must walk a ``catch`` branch before the run may end."""
    tries = [node for node in flow.nodes if node.type == "TryCatchBp"]
    return any(not node.params.constant or not node.params.evaluate({})["ignoreAbort"] for node in tries)


def _expire(activation: Activation) -> None:
    activation.stop("timeout", at_once=True)
