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
    Signal,
)
from flatwater.engine.wait import Waits
from flatwater.errors import FlatwaterError, RunError
from flatwater.store.state import State

if TYPE_CHECKING:
    from flatwater.engine.definition import Flow, Node
    from flatwater.engine.service import Services
    from flatwater.store.run import Claimed

ALWAYS = frozenset({"BreakBp", "ReturnBp"})
"""Their effect is a jump: it must be taken again whenever the walk passes them."""

Branch = tuple[tuple["Node", ...], str]
"""Blocks to walk one after another, and the path that theirs begin with."""


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
        self.finishing = False
        self.stopping: str | None = None
        self.holds_sites = row.locked or "site" in self.waits.kinds()
        self.used_robot = memory is not None
        self._memory = memory
        self.task: asyncio.Task[Any] | None = None
        self._permits: asyncio.Semaphore | None = None
        self._parallels: dict[str, tuple[Node, list[asyncio.Task[Any] | None]]] = {}
        if memory is not None:
            self.context.variables.update(memory.variables)
            self.context.blocks.update(memory.outputs)

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
            if step.state == State.SUCCEEDED and node.type not in ALWAYS:
                self.context.drop(node.releases)
                return
            if step.state == State.CANCELED:
                raise BranchStopped
        if self.stopping:
            raise Parked
        if node.disabled:
            self.journal.step(node, path, State.SKIPPED, time())
            return
        walk = WALKS.get(node.type)
        if walk is not None:
            await self._walk_flow(node, path, walk)
        else:
            await self._call_leaf(node, path)
        if node.releases:
            self.context.drop(node.releases)

    async def _walk_flow(self, node: Node, path: str, walk: Walk) -> None:
        started = time()
        try:
            if node.timeout_s is None:
                outputs = await walk(self, node, path)
            else:
                async with self.waits.deadline(node, path):
                    outputs = await walk(self, node, path)
        except (LoopBroken, RunReturned):
            self.journal.step(node, path, State.SUCCEEDED, started)
            raise
        except BlockFailed as failure:
            if path != "-1":
                self.journal.step(node, path, State.FAILED, started, error=failure.message)
            raise
        except Exception as error:
            wrapped = self._failure(node, path, error)
            self.journal.step(node, path, State.FAILED, started, error=wrapped.message)
            raise wrapped from None
        if outputs and node.name in self.flow.live_names:
            self.context.blocks[node.name] = outputs
        if path != "-1":
            self.journal.step(node, path, State.SUCCEEDED, started, outputs=outputs)

    async def _call_leaf(self, node: Node, path: str) -> None:
        """Execute a block that does something, as often as its retry policy allows."""
        attempt = await self._past_attempts(node, path)
        while True:
            started = time()
            try:
                await self._attempt(node, path, attempt, started)
                return
            except (LoopBroken, RunReturned):  # a block with children: a jump out of them
                self.journal.step(node, path, State.SUCCEEDED, started, attempt=attempt, waits=self.waits.ended(path))
                raise
            except asyncio.CancelledError:
                if self.canceled or not self.stopping:
                    self.journal.step(
                        node, path, State.CANCELED, started, attempt=attempt, waits=self.waits.ended(path)
                    )
                raise
            except Exception as error:
                failed = self._failure(node, path, error)
            self.journal.step(
                node, path, State.FAILED, started,
                attempt=attempt, error=failed.message, waits=self.waits.ended(path),
            )  # fmt: skip
            attempt = await self._next_attempt(node, path, attempt, failed)

    async def _past_attempts(self, node: Node, path: str) -> int:
        """The number of the attempt to make, after what earlier activations did."""
        step = self.past(path)
        if step is None:
            return 1
        if step.state == State.FAILED:
            failure = BlockFailed(path, node.name, step.error or "", "RunError")
            return await self._next_attempt(node, path, step.attempt, failure)
        return step.attempt

    async def _next_attempt(self, node: Node, path: str, attempt: int, failure: BlockFailed) -> int:
        retry = node.retry
        if retry is None or attempt >= retry.max_attempts:
            raise failure from None
        reason = f"attempt {attempt + 1} of {retry.max_attempts} after: {failure.message}"
        await self.sleep(f"{path}#retry{attempt}", retry.pause_s(attempt), reason)
        return attempt + 1

    async def _attempt(self, node: Node, path: str, attempt: int, started: float) -> None:
        call = Call(self, node, path, attempt)
        params = node.params.evaluate(self.context.scope)
        self.executing[path] = (node, started)
        try:
            await call.declare()
            if node.timeout_s is None:
                outputs = await call.perform(params)
            else:
                async with self.waits.deadline(node, path):
                    outputs = await call.perform(params)
        finally:
            del self.executing[path]
        if node.name in self.flow.live_names:
            self.context.blocks[node.name] = outputs
        self.journal.end_call(call, started, outputs, self.waits.ended(path))

    def past(self, path: str) -> Past | None:
        """What earlier activations recorded of a block."""
        return self._memory.steps.get(path) if self._memory is not None else None

    def begun_at(self, node: Node, path: str) -> float:
        """When the block was begun, by whichever activation; recorded if it is now."""
        step = self.past(path)
        if step is not None and step.started_at is not None:
            return step.started_at
        now = time()
        self.journal.step(node, path, State.RUNNING, now)
        return now

    def _failure(self, node: Node, path: str, error: Exception) -> BlockFailed:
        if isinstance(error, BlockFailed):
            return error
        message = str(error) or type(error).__name__
        if not isinstance(error, FlatwaterError):
            message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.services.log_failure(self.id, path, error)
        return BlockFailed(path, node.name, message, type(error).__name__)

    # ---- what flow blocks ask for ---------------------------------------------------------------

    def evaluate(self, node: Node, path: str) -> dict[str, Any]:
        """The block's parameters, by the values that its expressions have now."""
        return node.params.evaluate(self.context.scope)

    async def settled(self, node: Node, path: str) -> dict[str, Any]:
        """Parameters that must not change while the block is walked: evaluated once, recorded."""
        if node.params.constant:
            return node.params.evaluate(self.context.scope)
        if (progress := self.progress(path)) is not None:
            return progress
        params = node.params.evaluate(self.context.scope)
        self.note(node, path, params)
        return params

    def progress(self, path: str) -> dict[str, Any] | None:
        """What an earlier activation noted of this block."""
        step = self.past(path)
        return step.progress if step is not None else None

    def note(self, node: Node, path: str, progress: dict[str, Any]) -> None:
        """Record what a later activation must know of a block that is being walked."""
        self.journal.step(node, path, State.RUNNING, time(), progress=progress)

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
        """Let the store drop the records of an iteration long past."""
        old = index - self.services.options.max_kept_iterations
        if old >= 0:
            self.journal.forget(f"{path}[{old}]")

    def publish_outputs(self, node: Node, outputs: dict[str, Any]) -> None:
        """Let the children of a flow block read its outputs so far."""
        if node.name in self.flow.live_names:
            self.context.blocks[node.name] = outputs

    async def sleep(self, path: str, seconds: float, reason: str) -> None:
        """Wait; in memory when it is short, else the run may leave memory meanwhile."""
        await self.waits.sleep(path, seconds, reason)

    # ---- branches -------------------------------------------------------------------------------

    async def parallel(self, branches: list[Branch], node: Node, path: str) -> None:
        """Walk branches side by side; the first failure stops the others.

        Only branches that execute count against ``max_parallel`` (`permit`), so branches that wait
        for each other always get on.
        """
        if self._permits is None:
            limit = self.flow.max_parallel or self.services.options.max_parallel
            self._permits = asyncio.Semaphore(limit)
        only = (self.progress(path) or {}).get("only")
        start = self.services.branches.start
        tasks: list[asyncio.Task[Any] | None] = [
            start(self._branch(nodes, base), name=f"{self.id}{base}", context=self.id)
            if only is None or only == index
            else None
            for index, (nodes, base) in enumerate(branches)
        ]
        self._parallels[path] = (node, tasks)
        live = [task for task in tasks if task is not None]
        self.waits.fork(len(live))
        try:
            await self._join(live)
        finally:
            del self._parallels[path]
            self.waits.join()

    async def _branch(self, nodes: Sequence[Node], base: str) -> BaseException | None:
        """Walk one branch and hand its end over as a value: it is not the task's failure."""
        try:
            await self.serial(nodes, base)
            return None
        except (Signal, BlockFailed, FlatwaterError) as end:
            return end.with_traceback(None)
        except asyncio.CancelledError:
            return BranchStopped()
        finally:
            self.waits.branch_ended()

    async def _join(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait for all; what one raises ends the others, except a branch that parked."""
        pending = set(tasks)
        end: BaseException | None = None
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    end = graver(end, task.result())
                if end is not None and not isinstance(end, Parked):
                    break
        finally:
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
        if end is not None:
            raise end

    async def stop_siblings(self, path: str) -> int:
        """End the other branches of the parallel block around ``path``; returns how many."""
        around = max((p for p in self._parallels if within(path, p)), key=len, default=None)
        if around is None:
            raise RunError("StopOtherBranch stands in no parallel block", where=path)
        mine = asyncio.current_task()
        node, tasks = self._parallels[around]
        index = next((i for i, task in enumerate(tasks) if task is mine), None)
        if index is not None:
            self.note(node, around, {"only": index})
        others = [t for t in tasks if t is not None and t is not mine and not t.done()]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        return len(others)

    async def permit(self) -> None:
        """Wait for the right to execute beside the other branches."""
        if self._permits is not None:
            await self._permits.acquire()

    def give_back(self) -> None:
        if self._permits is not None:
            self._permits.release()

    # ---- being stopped --------------------------------------------------------------------------

    def stop(self, reason: str, *, at_once: bool) -> None:
        """Leave memory: blocks that wait stop now, those that execute at once or at their end."""
        if self.finishing:
            return  # its end is decided and on the way to the disk
        if self.stopping is None or reason == "cancel":
            self.stopping = reason
        self.canceled = self.canceled or reason == "cancel"
        if at_once and self.task is not None:
            self.task.cancel()
        else:
            self.waits.park()

    async def over(self) -> None:
        """Return when the activation has left memory and that is on the disk."""
        if self.task is not None:
            await asyncio.wait([self.task])

    async def clean_up(self, nodes: Sequence[Node], base: str) -> None:
        """Walk a ``catch`` branch of a canceled run, for as long as ``cleanup_s`` allows."""
        stopping, self.stopping = self.stopping, None
        try:
            async with asyncio.timeout(self.services.options.cleanup_s):
                await self.serial(nodes, base)
        except (BlockFailed, TimeoutError) as error:
            self.journal.log(base, "error", f"the clean-up after the cancel failed: {error}")
        finally:
            self.stopping = stopping


def task_scope(row: Claimed) -> dict[str, Any]:
    return {
        "id": row.id,
        "taskRecordId": row.id,
        "defLabel": row.label,
        "createdOn": row.created_at,
        "status": "RUNNING",
        "priority": row.priority,
    }


def within(path: str, around: str) -> bool:
    return path.startswith(around) and path[len(around) : len(around) + 1] in ("/", "[")


def graver(one: BaseException | None, two: BaseException | None) -> BaseException | None:
    """Of two ends the one that decides; a stopped branch decides nothing."""
    if isinstance(two, BranchStopped):
        return one
    if one is None or (isinstance(one, Parked) and two is not None):
        return two
    return one


__all__ = ["Activation", "OperatorNeeded"]
