"""The parallel blocks of one activation: branches side by side, who ends whom, and the right to execute.

Only branches that execute count against ``max_parallel`` (`Branches.permit`), so branches that wait for each other
always get on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flatwater.engine.signal import BlockFailed, BranchStopped, OperatorNeeded, Parked, Signal
from flatwater.errors import FlatwaterError, RunError

if TYPE_CHECKING:
    from flatwater.engine.activation import Activation
    from flatwater.engine.definition import Node

Branch = tuple[tuple["Node", ...], str]
"""Blocks to walk one after another, and the path that theirs begin with."""
Task = asyncio.Task[BaseException | None]


class Branches:
    """Walks the branches of parallel blocks, each in a task of its own."""

    def __init__(self, run: Activation) -> None:
        self._run = run
        self._permits: asyncio.Semaphore | None = None
        self._parallels: dict[str, tuple[Node, list[Task | None]]] = {}

    def close(self) -> None:
        """Break the circle with the activation, so that its context dies now and not with the next collection."""
        del self._run

    async def walk(self, branches: Sequence[Branch], node: Node, path: str) -> None:
        """Walk branches side by side; the first failure stops the others."""
        run = self._run
        if self._permits is None:
            self._permits = asyncio.Semaphore(run.flow.max_parallel or run.services.options.max_parallel)
        only = (run.progress(path) or {}).get("only")
        tasks: list[Task | None] = []
        self._parallels[path] = (node, tasks)
        end: BaseException | None = None
        try:
            for index, (nodes, base) in enumerate(branches):
                tasks.append(self._start(nodes, base) if only is None or only == index else None)
            with run.waits.aside():
                end = await join(task for task in tasks if task is not None)
            if end is not None:
                raise end
        finally:
            del self._parallels[path], end
            try:
                await finish(task for task in tasks if task is not None)
            finally:
                tasks.clear()  # a frame that an exception has passed must not hold it, else both hold the context
        run.check_stopped(path)

    def _start(self, nodes: Sequence[Node], base: str) -> Task:
        run, waits = self._run, self._run.waits
        task = run.services.branches.start(self._branch(nodes, base), name=f"{run.id}{base}", context=run.id)
        waits.enter()
        task.add_done_callback(lambda _: waits.leave())
        return task

    async def _branch(self, nodes: Sequence[Node], base: str) -> BaseException | None:
        """Walk one branch and hand its end over as a value: it is not the task's failure."""
        try:
            await self._run.serial(nodes, base)
            return None
        except (Signal, BlockFailed, FlatwaterError) as end:
            return end.with_traceback(None)
        except asyncio.CancelledError:
            return BranchStopped()

    async def stop_siblings(self, path: str) -> int:
        """End the other branches of the parallel block around ``path``; returns how many."""
        around = max((p for p in self._parallels if within(path, p)), key=len, default=None)
        if around is None:
            raise RunError("StopOtherBranch stands in no parallel block", where=path)
        mine = asyncio.current_task()
        node, tasks = self._parallels[around]
        index = next((i for i, task in enumerate(tasks) if task is mine), None)
        if index is not None:
            self._run.note(node, around, {"only": index})
        others = [t for t in tasks if t is not None and t is not mine and not t.done()]
        await finish(others)
        return len(others)

    async def permit(self) -> None:
        """Wait for the right to execute beside the other branches."""
        if self._permits is not None:
            await self._permits.acquire()

    def give_back(self) -> None:
        if self._permits is not None:
            self._permits.release()


async def join(tasks: Iterable[Task]) -> BaseException | None:
    """Wait for all and return the gravest end; return sooner with one that is to end the others.

    A branch that parked or needs an operator ends nobody: what the others do must not be lost.
    """
    pending = set(tasks)
    end: BaseException | None = None
    while pending and _gravity(end) < _gravity(BlockFailed):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # A task that was stopped before its first step has no result.
            end = graver(end, BranchStopped() if task.cancelled() else task.result())
    return end


async def finish(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until the last has ended, however often one is canceled oneself meanwhile."""
    pending = {task for task in tasks if not task.done()}
    canceled: asyncio.CancelledError | None = None
    for task in pending:
        task.cancel()
    while pending:
        try:
            _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            canceled = error
            for task in pending:
                task.cancel()
    try:
        if canceled is not None:
            raise canceled
    finally:
        del canceled


def within(path: str, around: str) -> bool:
    return path.startswith(around) and path[len(around) : len(around) + 1] in ("/", "[")


def graver(one: BaseException | None, two: BaseException | None) -> BaseException | None:
    """Of two ends the one that decides, of two alike the first; a stopped branch decides nothing."""
    if isinstance(two, BranchStopped):
        return one
    return two if _gravity(two) > _gravity(one) else one


def _gravity(end: BaseException | type[BaseException] | None) -> int:
    if end is None:
        return 0
    kind = end if isinstance(end, type) else type(end)
    return {Parked: 1, OperatorNeeded: 2}.get(kind, 3)
