"""One activation: the short time in which a run is in memory and is advanced.

It walks the tree of blocks, skips what the records say is done, executes, and leaves memory when the
run has ended or everything left in it waits. Nothing of it outlives it: what must be remembered is
in the store, and what a later activation needs follows from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.engine.branch import Branches, within
from flatwater.engine.call import Call
from flatwater.engine.context import Context
from flatwater.engine.flow import WALKS, Walk
from flatwater.engine.journal import Journal, Memory, Past
from flatwater.engine.signal import (
    BlockFailed,
    BranchStopped,
    LoopBroken,
    OperatorNeeded,
    Parked,
    RunReturned,
)
from flatwater.engine.wait import Waits, covers
from flatwater.errors import ClosedError, FencedError, FlatwaterError
from flatwater.store.state import State

if TYPE_CHECKING:
    from flatwater.engine.definition import Flow, Node
    from flatwater.engine.service import Services
    from flatwater.store.run import Claimed

JUMPS = {"break": LoopBroken, "return": RunReturned}
"""How a block may be left other than by its end; recorded, for a replay that skips the block must jump again."""


class Activation:
    """Advances one run. ``run()`` returns how it left memory."""

    def __init__(self, services: Services, row: Claimed, flow: Flow, memory: Memory | None) -> None:
        self.services = services
        self.id = row.id
        self.row = row
        self.flow = flow
        inputs = msgspec.json.decode(row.inputs) if row.inputs else {}
        self.context = Context(inputs, task_scope(row))
        self.journal = Journal(services, row)
        self.waits = Waits(self, memory.waits if memory is not None else {})
        self.robots: dict[str, str] = {}
        self.executing: dict[str, tuple[Node, float]] = {}
        self.canceled = False
        self.begun = False
        self.finishing = False
        self.stopping: str | None = None
        self.holds_sites = row.locked or "site" in self.waits.kinds()
        self.used_robot = memory is not None
        self._memory = memory
        self.task: asyncio.Task[Any] | None = None
        self.branches = Branches(self)
        self.halted = False
        self.cleanups: set[str] = set()
        self._notes: dict[str, dict[str, Any]] = {}
        self._attempts: dict[str, int] = {}
        self._sources: dict[str, str] = {}
        self._old: list[str] = []
        if memory is not None:
            self.context.variables.update(memory.variables)
            self.context.blocks.update(memory.outputs)
            self._sources.update(memory.sources)

    # ---- the walk -------------------------------------------------------------------------------

    async def walk(self) -> None:
        """Walk the whole tree from where it stands."""
        try:
            await self.execute(self.flow.root, "-1")
        except RunReturned:
            return

    async def serial(self, nodes: Sequence[Node], base: str) -> None:
        for node in nodes:
            await self.execute(node, f"{base}/{node.id}")

    async def execute(self, node: Node, path: str) -> None:
        """Execute one block, or skip it when its record says that it is done."""
        step = self.past(path)
        if step is not None:
            if step.state == State.SUCCEEDED:
                self._skip(node, path, step)
                return
            if step.state == State.CANCELED and not self.canceled:
                raise BranchStopped
        if self.stopping is not None and not (self.canceled and node.type in WALKS and self.began(path)):
            self.check_stopped(path)
        if self.services.store.writer.full:
            await self.services.store.writer.room()
        if node.disabled:
            self.journal.step(node, path, State.SKIPPED, time())
            return
        walk = WALKS.get(node.type)
        with self.services.spans.block(self.row, node, path):
            await (self._call_leaf(node, path) if walk is None else self._walk_flow(node, path, walk))
        if node.releases:
            self.context.drop(path, node.releases)

    def _skip(self, node: Node, path: str, step: Past) -> None:
        """Pass over a block that is done; one that was left by a jump is left by it again."""
        jump = (step.progress or {}).get("jump")
        if jump is not None:
            raise JUMPS[jump]
        self.context.drop(path, node.releases)

    def check_stopped(self, path: str) -> None:
        """Go no further when the run is to leave memory, but for the clean-up of one that is canceled."""
        if self.stopping is None or any(within(path, around) for around in self.cleanups):
            return
        if self.canceled:
            raise asyncio.CancelledError  # as if it came now: what is around cleans up
        self.halted = True
        raise Parked

    async def _walk_flow(self, node: Node, path: str, walk: Walk) -> None:
        """Walk a flow block, as often as its retry policy allows; each time its children begin afresh."""
        attempt = 1 if node.retry is None else await self._past_attempts(node, path)
        while True:
            try:
                await self._walk_once(node, path, walk, attempt)
                return
            except BlockFailed as failure:
                failed = failure
            try:
                attempt = await self._next_attempt(node, path, attempt, failed)
            finally:
                del failed

    async def _walk_once(self, node: Node, path: str, walk: Walk, attempt: int) -> None:
        started = time()
        try:
            if node.timeout_s is None:
                outputs = await walk(self, node, path)
            else:
                async with self.waits.deadline(path, self.begun_at(node, path), node.timeout_s):
                    outputs = await walk(self, node, path)
        except (LoopBroken, RunReturned) as jump:
            self._left_by(jump, node, path, started)
            raise
        except (FencedError, ClosedError):
            raise
        except BlockFailed as failure:
            if path != "-1":
                self.journal.step(node, path, State.FAILED, started, attempt=attempt, error=failure.message)
            raise
        except Exception as error:
            wrapped = failure_of(self, node, path, error)
            self.journal.step(node, path, State.FAILED, started, attempt=attempt, error=wrapped.message)
            try:
                raise wrapped from None
            finally:
                del wrapped  # else exception and frame hold each other, and both the context
        if outputs:
            self._keep(node, path, outputs)
        if path != "-1":
            self.journal.step(node, path, State.SUCCEEDED, started, attempt=attempt, outputs=outputs)

    def _left_by(self, jump: LoopBroken | RunReturned, node: Node, path: str, started: float, **more: Any) -> None:
        if path != "-1":
            kind = "break" if isinstance(jump, LoopBroken) else "return"
            self.journal.step(node, path, State.SUCCEEDED, started, progress={"jump": kind}, **more)

    async def _call_leaf(self, node: Node, path: str) -> None:
        """Execute a block that does something, as often as its retry policy allows."""
        attempt = await self._past_attempts(node, path)
        while True:
            started = time()
            try:
                await self._attempt(node, path, attempt, started)
                return
            except (LoopBroken, RunReturned) as jump:  # a block with children: a jump out of them
                self._left_by(jump, node, path, started, attempt=attempt, waits=self.waits.ended(path))
                raise
            except asyncio.CancelledError:
                if self.stopping is not None and not self.canceled:
                    raise  # the run is only leaving memory
                if self.canceled or being_canceled():
                    self.journal.step(
                        node, path, State.CANCELED, started, attempt=attempt, waits=self.waits.ended(path)
                    )
                    raise
                failed = BlockFailed(path, node.name, "it was canceled from within", "CancelledError")
            except (FencedError, ClosedError):
                raise  # not the block's fault: nothing of this run can be recorded any more
            except Exception as error:
                failed = failure_of(self, node, path, error)
            self.journal.step(
                node, path, State.FAILED, started, attempt=attempt, error=failed.message,
                progress={"kind": failed.kind}, waits=self.waits.ended(path),
            )  # fmt: skip
            try:
                attempt = await self._next_attempt(node, path, attempt, failed)
            finally:
                del failed

    async def _past_attempts(self, node: Node, path: str) -> int:
        """The number of the attempt to make, after what earlier activations did."""
        step = self.past(path)
        if step is None:
            return 1
        if step.state == State.FAILED and not (node.type in WALKS and self._is_last(node, step.attempt)):
            kind = (step.progress or {}).get("kind", "RunError")
            return await self._next_attempt(
                node, path, step.attempt, BlockFailed(path, node.name, step.error or "", kind)
            )
        return step.attempt

    def _is_last(self, node: Node, attempt: int) -> bool:
        return node.retry is None or attempt >= node.retry.max_attempts

    async def _next_attempt(self, node: Node, path: str, attempt: int, failure: BlockFailed) -> int:
        retry = node.retry
        if retry is None or self._is_last(node, attempt):
            try:
                raise failure from None
            finally:
                del failure
        reason = f"attempt {attempt + 1} of {retry.max_attempts} after: {failure.message}"
        await self.waits.sleep(f"{path}#retry{attempt}", retry.pause_s(attempt), reason)
        if node.branches:
            self._begin_afresh(node, path, attempt + 1)
        return attempt + 1

    def _begin_afresh(self, node: Node, path: str, attempt: int) -> None:
        """The next attempt of a block with children begins with none of them done; on record, for they may be soon."""
        self._notes = {known: note for known, note in self._notes.items() if not covers(path, known)}
        self._attempts[path] = attempt
        self.journal.begin_afresh(node, path, attempt, self.waits.inside(path))
        if self._memory is not None:
            self._memory.forget(path)

    async def _attempt(self, node: Node, path: str, attempt: int, started: float) -> None:
        call = Call(self, node, path, attempt)
        params = node.params.evaluate(self.context.scope_at(path))
        self.executing[path] = (node, started)
        try:
            await call.enter()
            self.check_stopped(path)
            begun_at = await call.declare()
            if node.timeout_s is None:
                outputs = await call.perform(params)
            else:
                async with self.waits.deadline(path, begun_at, node.timeout_s):
                    outputs = await call.perform(params)
        finally:
            call.leave()
            del self.executing[path]
        waits = self.waits.ended(path)
        try:
            await self.journal.end_call(call, started, outputs, waits)
        except BaseException:
            self.waits.not_ended(waits)
            raise
        if call.variables_set:
            self.context.variables.update(call.variables_set)
        self._keep(node, path, outputs)

    def _keep(self, node: Node, path: str, outputs: dict[str, Any]) -> None:
        """Let expressions read the outputs of a block that has ended, if any does."""
        if node.name in self.flow.live_names:
            self.context.put(path, node.name, outputs)
            self._sources[node.name] = path

    def past(self, path: str) -> Past | None:
        """What earlier activations recorded of a block."""
        return self._memory.steps.get(path) if self._memory is not None else None

    def attempt_of(self, path: str) -> int:
        """Which attempt of a block that was begun this is."""
        step = self.past(path)
        return self._attempts.get(path) or (step.attempt if step is not None else 1)

    def begun_at(self, node: Node, path: str) -> float:
        """When the flow block was begun, by whichever activation; recorded if it is now."""
        step = self.past(path)
        if step is not None and step.started_at is not None:
            return step.started_at
        now = time()
        self.journal.step(node, path, State.RUNNING, now, attempt=self._attempts.get(path, 1))
        return now

    # ---- what flow blocks ask for ---------------------------------------------------------------

    def evaluate(self, node: Node, path: str) -> dict[str, Any]:
        """The block's parameters, by the values that its expressions have now."""
        return node.params.evaluate(self.context.scope_at(path))

    async def settled(self, node: Node, path: str) -> dict[str, Any]:
        """Parameters that must not change while the block is walked: evaluated once, recorded."""
        if node.params.constant:
            return node.params.evaluate(self.context.scope_at(path))
        if (progress := self.progress(path)) is not None:
            return progress
        params = node.params.evaluate(self.context.scope_at(path))
        self.note(node, path, params)
        return params

    def progress(self, path: str) -> dict[str, Any] | None:
        """What an earlier activation noted of this block, while it was being walked."""
        step = self.past(path)
        return step.progress if step is not None and step.state == State.RUNNING else None

    def note(self, node: Node, path: str, progress: dict[str, Any]) -> None:
        """Record what a later activation must know of a block that is being walked, beside what it knows already."""
        step = self.past(path)
        known = self._notes.get(path) or (step.progress if step is not None else None) or {}
        self._notes[path] = {**known, **progress}
        begun, attempt = (step.started_at, step.attempt) if step is not None else (None, self._attempts.get(path, 1))
        self.journal.step(node, path, State.RUNNING, begun or time(), attempt=attempt, progress=self._notes[path])

    def seen(self, nodes: Sequence[Node], base: str) -> bool:
        """Whether a record exists of any of these blocks or of anything below them."""
        return self._memory is not None and any(self.began(f"{base}/{node.id}") for node in nodes)

    def began(self, path: str) -> bool:
        """Whether a record exists of this path or of anything below it."""
        return self._memory is not None and path in self._memory.touched

    def iteration(self, path: str) -> int:
        """The iteration that the loop was in; 0 when it is new."""
        return self._memory.iterations.get(path, 0) if self._memory is not None else 0

    def forget_iteration(self, path: str, index: int) -> None:
        """Let the store drop the records of an iteration long past, once no output comes from there any more."""
        old = index - self.services.options.max_kept_iterations
        if old < 0:
            return
        read = self._sources.values()
        waiting = [*self._old, f"{path}[{old}]"]
        self._old = [prefix for prefix in waiting if any(within(source, prefix) for source in read)]
        for prefix in waiting:
            if prefix not in self._old:
                self.journal.forget(prefix)

    def publish_outputs(self, node: Node, path: str, outputs: dict[str, Any]) -> None:
        """Let the children of a flow block read its outputs so far."""
        if node.name in self.flow.live_names:
            self.context.put(path, node.name, outputs)

    def open_copies(self, node: Node, path: str, bases: Sequence[str]) -> None:
        """Give each copy of a block's children outputs of its own."""
        foreign = [name for name, source in self._sources.items() if within(source, path)]
        for index, base in enumerate(bases):
            known = self._memory.outputs_within(base) if self._memory is not None else {}
            if node.name in self.flow.live_names:
                known[node.name] = {"num": len(bases), "index": index}
            self.context.copy(base, path, known, foreign)

    def join_copies(self, path: str, bases: Sequence[str]) -> None:
        for base in bases:
            self.context.join(base, path)

    # ---- being stopped --------------------------------------------------------------------------

    def stop(self, reason: str, *, at_once: bool, recorded: bool = False) -> None:
        """Leave memory: blocks that wait stop now, those that execute at once or at their end.

        A cancel or a pause goes on record before anything that comes of it, unless it is ``recorded`` already.
        """
        if self.finishing:
            return  # its end is decided and on the way to the disk
        if self.canceled and reason == "cancel":
            return  # a second one must not disturb the clean-up
        if not recorded and reason in ("cancel", "pause"):
            self.journal.ask("cancel" if reason == "cancel" else "pause")
        if self.stopping is None or reason == "cancel":
            self.stopping = reason
        self.canceled = self.canceled or reason == "cancel"
        if at_once and self.task is not None and self.begun:
            self.task.cancel()  # not before its first step, or it would end without a trace of the run
        else:
            self.waits.park()

    async def over(self) -> None:
        """Return when the activation has left memory and that is on the disk."""
        if self.task is not None:
            await asyncio.wait([self.task])


def being_canceled() -> bool:
    """Whether a cancellation comes from us; a block may also await something that was canceled elsewhere."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def failure_of(run: Activation, node: Node, path: str, error: Exception) -> BlockFailed:
    """What a block raised, as the failure of that block; the traceback of what is not ours goes to the log."""
    if isinstance(error, BlockFailed):
        return error
    message = str(error) or type(error).__name__
    if not isinstance(error, FlatwaterError):
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        run.services.log_failure(run.id, path, error)
    return BlockFailed(path, node.name, message, type(error).__name__)


def task_scope(row: Claimed) -> dict[str, Any]:
    return {
        "id": row.id,
        "taskRecordId": row.id,
        "defLabel": row.label,
        "createdOn": row.created_at,
        "status": "RUNNING",
        "priority": row.priority,
    }


__all__ = ["Activation", "OperatorNeeded"]
