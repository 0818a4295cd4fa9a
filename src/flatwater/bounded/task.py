"""Background tasks that nobody has to remember: the only place of Flatwater that creates asyncio tasks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.errors import ClosedError, LimitError

T = TypeVar("T")

logger = logging.getLogger(__name__)


class TaskGroupStatistics(Usage, frozen=True, kw_only=True):
    """``size`` tasks run, of ``bound`` allowed; the rest counts since the group was made, except ``waiting`` (now)."""

    peak: int
    started: int
    succeeded: int
    failed: int
    canceled: int
    refused: int
    abandoned: int
    waiting: int


class TaskInfo(msgspec.Struct, frozen=True):
    """A task of a group as people see it; ``age_s`` is the time since its start."""

    name: str
    context: object
    age_s: float


class TaskGroup:
    """A supervisor of background work.

    It holds each task strongly until it ends, and not a moment longer; it logs and counts what fails, without touching
    the siblings; it refuses tasks above ``max_tasks``; leaving it cancels what still runs and waits for that, for at
    most ``stop_timeout_s``.

    ``start`` and ``admit`` take ``context``: anything whose ``repr`` helps whoever reads the log of a failure.
    """

    kind = "task group"

    def __init__(self, name: str, *, max_tasks: int, ledger: Ledger, stop_timeout_s: float = 10.0) -> None:
        check_bound("max_tasks", max_tasks, where=name)
        check_bound("stop_timeout_s", stop_timeout_s, where=name)
        self.name = name
        self._max_tasks = max_tasks
        self._stop_timeout_s = stop_timeout_s
        self._entered = False
        self._loop: asyncio.AbstractEventLoop | None = None  # set while tasks may start
        self._tasks: dict[asyncio.Task[Any], tuple[object, float]] = {}  # in order of start
        self._waiters: deque[asyncio.Future[None]] = deque()  # callers of admit, first come, first served
        self._granted = 0  # rooms given to waiters that have not started their task yet
        self._started = self._succeeded = self._failed = self._canceled = 0
        self._refused = self._abandoned = self._peak = 0
        ledger.register(self)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ClosedError("a task group is entered once", where=self.name)
        self._entered = True
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self, coro: Coroutine[Any, Any, T], *, name: str, context: object = None) -> asyncio.Task[T]:
        """Run ``coro`` in the background; raises LimitError when full, ClosedError when stopped."""
        if self._loop is None or len(self._tasks) + self._granted >= self._max_tasks:
            self._refuse(coro, name)
        return self._start(coro, name, context)

    async def admit(self, coro: Coroutine[Any, Any, T], *, name: str, context: object = None) -> asyncio.Task[T]:
        """As ``start``, but wait for room when the group is full."""
        if self._loop is not None and len(self._tasks) + self._granted >= self._max_tasks:
            try:
                await self._room()
            except BaseException:
                coro.close()
                raise
        if self._loop is None:
            self._refuse(coro, name)
        return self._start(coro, name, context)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until no task is left, those started meanwhile included; False when ``timeout_s`` passed before that."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while others := self._others():
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return False
            await asyncio.wait(others, timeout=left_s)
        return True

    async def stop(self) -> None:
        """Refuse new tasks, cancel those that run, and wait until they have ended. Idempotent."""
        self._loop = None
        self._grant_rooms()
        if not (others := self._others()):
            return
        for task in others:
            task.cancel()
        if await self.drain(self._stop_timeout_s):
            return
        for task in self._others():
            self._abandoned += 1
            logger.error("task %r of %s does not heed its cancellation%s", task.get_name(), self.name, self._told(task))

    def tasks(self) -> list[TaskInfo]:
        """The tasks that run, oldest first."""
        running = list(self._tasks.items())
        return [TaskInfo(task.get_name(), context, task.get_loop().time() - at) for task, (context, at) in running]

    def statistics(self) -> TaskGroupStatistics:
        return TaskGroupStatistics(
            size=len(self._tasks),
            bound=self._max_tasks,
            peak=self._peak,
            started=self._started,
            succeeded=self._succeeded,
            failed=self._failed,
            canceled=self._canceled,
            refused=self._refused,
            abandoned=self._abandoned,
            waiting=len(self._waiters),
        )

    def __len__(self) -> int:
        return len(self._tasks)

    def _start(self, coro: Coroutine[Any, Any, T], name: str, context: object) -> asyncio.Task[T]:
        loop = self._loop
        assert loop is not None  # start and admit have checked it
        task = loop.create_task(coro, name=name)
        tasks = self._tasks
        tasks[task] = (context, loop.time())
        self._started += 1
        if len(tasks) > self._peak:
            self._peak = len(tasks)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        context, _ = self._tasks.pop(task)
        if self._waiters:
            self._grant_rooms()
        if task.cancelled():
            self._canceled += 1
        elif (error := task.exception()) is None:
            self._succeeded += 1
        else:
            self._failed += 1
            logger.error("task %r of %s failed%s", task.get_name(), self.name, _told(context), exc_info=error)

    def _refuse(self, coro: Coroutine[Any, Any, Any], name: str) -> None:
        coro.close()  # or Python warns that it was never awaited
        self._refused += 1
        if self._loop is None:
            raise ClosedError(
                f"task {name!r} cannot start", where=self.name, hint="enter the group before, stop it after"
            )
        raise LimitError(
            f"{self._max_tasks} tasks run already, {name!r} was refused",
            where=self.name,
            hint="start fewer tasks, await admit() instead of start(), or raise max_tasks",
        )

    async def _room(self) -> None:
        """Wait for a room and take it; the caller starts its task at once, without awaiting."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with suppress(ValueError):  # _grant_rooms may have met it first
                    self._waiters.remove(waiter)
            else:  # granted, but too late: pass it on
                self._granted -= 1
                self._grant_rooms()
            raise
        self._granted -= 1

    def _grant_rooms(self) -> None:
        """Give free rooms to waiters in turn; once stopped, wake them all to be refused."""
        while self._waiters and (self._loop is None or len(self._tasks) + self._granted < self._max_tasks):
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._granted += 1
                waiter.set_result(None)

    def _others(self) -> set[asyncio.Task[Any]]:
        current = asyncio.current_task()  # a task may drain or stop its own group without waiting for itself
        return {task for task in self._tasks if task is not current}

    def _told(self, task: asyncio.Task[Any]) -> str:
        return _told(self._tasks[task][0])


def _told(context: object) -> str:
    return "" if context is None else f" ({context!r})"
