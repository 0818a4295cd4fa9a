"""The waits of one activation, and the decision to leave memory.

A short wait stays in memory. When every live branch waits and nothing is due soon, or when other
runs queue for the place, all waits go to the store as rows and the activation ends (`Parked`).
A wait that was granted meanwhile makes the store queue the run again at once, so none is lost.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from flatwater.engine.signal import Parked, WaitTimeout
from flatwater.errors import RunError
from flatwater.store.waiter import Waiter

if TYPE_CHECKING:
    from flatwater.engine.activation import Activation

SOON_S = 0.02
"""A run that goes on within this time keeps its place in memory, whoever queues for it."""
_PARK = object()
_DUE = object()


class Wait(msgspec.Struct, eq=False):
    """One block that waits: for what, since when, until when."""

    path: str
    kind: str
    key: str
    reason: str
    since: float
    due_at: float | None
    want: str | None = None
    granted: Any = UNSET
    """What came; may be anything, null included."""
    stored: bool = False
    seen: bool = False
    """Whether the walk has come to it again; one that a whole walk did not is left over from a branch that ended."""
    taken: bool = False
    """Whether its block has gone on with what came."""
    future: asyncio.Future[Any] | None = None

    @property
    def forsaken(self) -> str | None:
        """The child run that nobody waits for any more, once this wait is given up."""
        return self.key if self.kind == "child" and self.granted is UNSET else None

    def row(self, run_id: str, rank: float) -> Waiter:
        """As the store keeps it."""
        return Waiter(run_id, self.path, self.kind, self.key, self.since, rank, self.due_at, self.reason, self.want)


class Waits:
    """Open waits and live branches of an activation."""

    def __init__(self, run: Activation, stored: dict[str, Wait]) -> None:
        self._run = run
        self._stored = stored
        self._open: dict[str, Wait] = {}
        self._deadlines: dict[str, float] = {}
        self._parked: dict[str, Wait] = {}
        self._parked_dues: list[float] = []
        self._branches = 1
        self._timer: asyncio.TimerHandle | None = None
        self.touched = bool(stored)

    def close(self) -> None:
        """Break the circle with the activation, so that its context dies now and not with the next collection."""
        self._disarm()
        self._open.clear()
        del self._run

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- branches: how many could still do something --------------------------------------------

    def enter(self) -> None:
        """One more branch can do something."""
        self._branches += 1

    def leave(self) -> None:
        """A branch has ended."""
        self._branches -= 1
        self._settle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Meanwhile this branch does nothing but wait for branches of its own."""
        self.leave()
        try:
            yield
        finally:
            self.enter()

    # ---- waiting --------------------------------------------------------------------------------

    async def sleep(self, path: str, seconds: float, reason: str) -> None:
        """Return when ``seconds`` have passed since this wait was first begun."""
        wait = self.stored(path)
        if wait is None:
            if seconds <= 0:
                await asyncio.sleep(0)
                return
            now = time()
            wait = Wait(path, "timer", self._run.id, reason, now, now + seconds)
            if seconds > self._run.services.options.park_after_s:
                self._store(wait)
        if wait.granted is UNSET:
            await self._until(wait)
        if wait.stored:
            self._stored.pop(path, None)
            self._run.journal.end_wait(path)

    async def grant(self, wait: Wait, *, insert: bool) -> Any:
        """Return what ``wait`` is granted; raise ``WaitTimeout`` when its time is over.

        ``insert`` is false when a transaction has written the row already. The row stays until the
        block ends, so that a replay finds what was granted.
        """
        known = self.stored(wait.path)
        if known is None:
            known = wait
            if insert:
                self._store(wait)
            else:
                self.expect(wait)
        if known.granted is UNSET and await self._until(known) is _DUE and known.granted is UNSET:
            raise WaitTimeout(f"waited {time() - known.since:.1f} s for {known.reason}", where=wait.path)
        known.taken = True
        return known.granted

    def expect(self, wait: Wait) -> Wait:
        """A transaction is about to write the row of ``wait``."""
        wait.stored = wait.seen = True
        self._stored[wait.path] = wait
        self.touched = True
        return wait

    def stored(self, path: str) -> Wait | None:
        """The wait that an earlier activation, or this one, has in the store."""
        wait = self._stored.get(path)
        if wait is not None:
            wait.seen = True
        return wait

    def rows(self) -> list[Wait]:
        """All waits of this run that have a row in the store."""
        return list(self._stored.values())

    def kinds(self) -> set[str]:
        return {wait.kind for wait in self._stored.values()}

    def ended(self, path: str) -> list[Wait]:
        """Forget the waits of a block that has ended; returns those whose rows must go."""
        if not self._stored:
            return []
        mine = [p for p in self._stored if p == path or p.startswith(f"{path}#")]
        return [self._stored.pop(p) for p in mine]

    def not_ended(self, waits: Iterable[Wait]) -> None:
        """What was forgotten by `ended` has rows still."""
        self._stored.update((wait.path, wait) for wait in waits)

    def inside(self, path: str) -> list[Wait]:
        """Forget the waits of everything in a block with children; returns those whose rows must go."""
        return [self._stored.pop(p) for p in list(self._stored) if p != path and covers(path, p)]

    def _store(self, wait: Wait) -> None:
        self.expect(wait)
        self._run.journal.wait(wait, self._run.row.rank)

    async def _until(self, wait: Wait) -> Any:
        if wait.due_at is not None and wait.due_at <= time():
            return _DUE  # at once: runs that queue for this place could park it before a timer rings, again and again
        loop = asyncio.get_running_loop()
        wait.future = future = loop.create_future()
        timer = None
        if wait.due_at is not None:
            timer = loop.call_later(max(0.0, wait.due_at - time()), _finish, future, _DUE)
        self._open[wait.path] = wait
        self._settle()
        try:
            end = await future
        finally:
            if timer is not None:
                timer.cancel()
            del self._open[wait.path]
            wait.future = None
            self._unsettle()
        if end is _PARK:
            self._park(wait)
            raise Parked
        return end

    def _park(self, wait: Wait) -> None:
        """The run cannot go on here before ``wait`` is granted, or before a time has come."""
        self._parked[wait.path] = wait
        around = [at for path, at in self._deadlines.items() if covers(path, wait.path)]
        self._parked_dues += around if wait.due_at is None else [wait.due_at, *around]

    def wake(self, path: str, granted: Any, since: float | None = None) -> None:
        """A wait was granted. ``since`` tells an old wait of that block from a new one, for news that may be late."""
        wait = self._stored.get(path)
        if wait is None or wait.taken or (since is not None and since != wait.since):
            return
        wait.granted = granted
        if wait.future is not None:
            _finish(wait.future, None)

    # ---- deadlines ------------------------------------------------------------------------------

    @asynccontextmanager
    async def deadline(self, path: str, begun_at: float, timeout_s: float) -> AsyncIterator[None]:
        """Fail the block when it takes longer than its time-out, counted over all activations."""
        at = begun_at + timeout_s
        late = f"took longer than its time-out of {timeout_s:g} s"
        if at <= time():
            raise RunError(late, where=path)
        self._deadlines[path] = at
        scope = asyncio.timeout(max(0.0, at - time()))
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise RunError(late, where=path) from None
        finally:
            del self._deadlines[path]

    # ---- leaving memory -------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing in the run can go on by itself now."""
        return bool(self._open) and len(self._open) >= self._branches

    def due_at(self) -> float | None:
        """When the run must be looked at again, if nothing wakes it before."""
        return min(self._parked_dues, default=None)

    def summary(self) -> list[dict[str, Any]]:
        """What the run waits for, for its record."""
        return [
            {"path": w.path, "kind": w.kind, "key": w.key, "reason": w.reason, "since": w.since, "due_at": w.due_at}
            for w in self._parked.values()
        ]

    def taken(self) -> list[str]:
        """The paths of the rows that were granted and used: they must not wake the run that parks now."""
        return [wait.path for wait in self._stored.values() if wait.taken]

    def left_over(self) -> list[Wait]:
        """Forget the waits that no branch has come to, and return them: nobody will ever take what they are granted."""
        return [self._stored.pop(path) for path, wait in list(self._stored.items()) if not wait.seen]

    def _settle(self) -> None:
        if not self.idle:
            return
        services = self._run.services
        services.idle(self._run)
        nearest = min((w.due_at for w in self._open.values() if w.due_at is not None), default=None)
        after = services.options.park_after_s
        if nearest is not None and nearest - time() <= after:
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(after, self.park)

    def _unsettle(self) -> None:
        self._run.services.busy(self._run)
        self._disarm()

    def _goes_on_soon(self) -> bool:
        dues = [wait.due_at for wait in self._open.values()]
        times = [at for at in (*dues, *self._deadlines.values(), self._run.row.deadline_at) if at is not None]
        return min(times, default=math.inf) - time() < SOON_S

    def park(self) -> None:
        """Send every open wait to the store and end the activation, if nothing else executes."""
        self._disarm()
        waiting = [wait for wait in self._open.values() if wait.future is not None and not wait.future.done()]
        if self._run.stopping is None and not (waiting and len(waiting) >= self._branches):
            return  # something goes on, if only in the next turn of the loop
        if self._run.stopping is None and self._goes_on_soon():
            return  # to leave and come back would take longer
        for wait in waiting:
            if not wait.stored:
                self._store(wait)
            if wait.future is not None:
                _finish(wait.future, _PARK)


def covers(around: str, path: str) -> bool:
    """Whether a path is that of a block, of something in it, or of one of their waits."""
    return path.startswith(around) and path[len(around) : len(around) + 1] in ("", "/", "[", "#")


def _finish(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
