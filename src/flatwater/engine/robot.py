"""The bridge between a robot driver and the runs that wait for robots.

Who waits, who has a robot and who waits for which order is in the store (`flatwater.store.robot_waiter`), so runs may
leave memory meanwhile and the process may die. The bridge turns what the driver reports into grants, and keeps one
rule from which all giving back follows: *a robot is held, and an order is under way, as long as the row of the block
that wanted it exists*. The row goes with the block or with the run, however that ends; the bridge looks whenever a
block or a run ends, at its start, and every ``recheck_s`` seconds in case something was missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from flatwater.engine.driver import (
    DriverEvent,
    OrderEnded,
    OrderState,
    RobotDriver,
    RobotFree,
    RobotInfo,
    SelectRequest,
)
from flatwater.engine.signal import Parked
from flatwater.errors import ClosedError, FencedError, InputError, NotFoundError
from flatwater.store import robot_waiter as waits
from flatwater.store import waiter as waiters
from flatwater.store.robot_waiter import FIRST, HOLD, Place
from flatwater.store.waiter import Grant, Waiter

if TYPE_CHECKING:
    from flatwater.engine.service import Services

log = logging.getLogger(__name__)
_PAGE = 200
"""Waiters that one look at the queue reads."""


class BridgeStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the start; ``pending`` ended orders are still to be told, of at most ``max_pending``."""

    selected: int
    released: int
    ended: int
    canceled: int
    lost: int
    pending: int
    max_pending: int
    failures: int


class RobotBridge:
    """Serves those who wait for robots. Used as ``async with RobotBridge(services) as bridge:``."""

    def __init__(
        self,
        services: Services,
        *,
        recheck_s: float = 5.0,
        retry_s: float = 1.0,
        lost_s: float = 30.0,
        max_pending: int = 10_000,
    ) -> None:
        if services.driver is None:
            raise ClosedError("there is no robot driver", hint="pass driver=… to the engine")
        self.driver: RobotDriver = services.driver
        self._services = services
        self._recheck_s = recheck_s
        self._retry_s = retry_s
        self._lost_s = lost_s
        self._max_pending = max_pending
        self._ended: dict[str, OrderEnded] = {}
        self._nudge = asyncio.Event()
        self._overflow = False
        self._checked = 0.0
        self._task: asyncio.Task[None] | None = None
        self._deafen: Callable[[], None] = _nothing
        self._counts = dict.fromkeys(("selected", "released", "ended", "canceled", "lost", "failures"), 0)

    # ---- lifetime -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._deafen = self.driver.listen(self._hear)
        self._task = self._services.tasks.start(self._run(), name="robot bridge")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving. What is held stays held, and orders go on. Idempotent."""
        self._deafen()
        self._deafen = _nothing
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    # ---- what runs tell -------------------------------------------------------------------------

    def look(self) -> None:
        """Somebody waits for a robot, or does not want one any more."""
        self._nudge.set()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look when the block inside ends, however it does; not when its run only leaves memory."""
        try:
            yield
        except Parked:
            raise
        except BaseException:
            self.look()
            raise
        self.look()

    async def release_run(self, run_id: str) -> None:
        """The run has ended, and its waiters are gone: what it still has is given back."""
        self._nudge.set()

    async def keeps(self, run_id: str, path: str, robot_id: str) -> bool:
        """Whether that block still has the robot, as the driver sees it; it has when the driver cannot be asked."""
        try:
            robots = await self.driver.robots()
        except Exception as error:
            log.warning("the robots cannot be asked: %s", error)
            return True
        return any((robot.id, robot.run_id, robot.path) == (robot_id, run_id, path) for robot in robots)

    async def robot(self, robot_id: str) -> RobotInfo | None:
        return next((robot for robot in await self.driver.robots() if robot.id == robot_id), None)

    # ---- what the driver tells --------------------------------------------------------------------

    def _hear(self, event: DriverEvent) -> None:
        if isinstance(event, OrderEnded):
            if len(self._ended) < self._max_pending:
                self._ended[event.order_id] = event
            else:
                self._overflow = True  # it will be asked for
            self._nudge.set()
        elif isinstance(event, RobotFree):
            self._nudge.set()

    # ---- the loop -------------------------------------------------------------------------------

    async def _run(self) -> None:
        restored = False
        while True:
            try:
                if not restored:
                    await self._restore()
                    restored = True
                await self._round()
            except ClosedError as error:
                log.info("robots are not served any more: %s", error)
                return
            except FencedError as error:
                log.info("robots are not served for now: %s", error)
                await asyncio.sleep(self._retry_s)
            except Exception:
                self._counts["failures"] += 1
                log.exception("could not serve those who wait for robots; trying again in %g s", self._retry_s)
                await asyncio.sleep(self._retry_s)
            else:
                await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._recheck_s):
                await self._nudge.wait()
        except TimeoutError:
            return

    async def _restore(self) -> None:
        """Tell a driver without a memory who had which robot, before anybody else is served."""
        after = ""
        while holds := await self._services.store.read(waits.holds, after, _PAGE):
            for row in holds:
                given = await self.driver.select(SelectRequest(run_id=row.run_id, path=row.path, robot=row.key))
                if given != row.key:
                    text = "run %s, block %s had robot %s, which is gone"
                    log.warning(text, row.run_id, row.path, row.key, extra={"run_id": row.run_id, "path": row.path})
            after = holds[-1].key

    async def _round(self) -> None:
        self._nudge.clear()
        await self._settle()
        if self._overflow or time() - self._checked >= self._recheck_s:
            self._overflow, self._checked = False, time()
            await self._recheck()
        await self._services.store.writer.flush()  # what runs have put before they called is to be seen
        await self._give_back()
        await self._serve()

    # ---- orders ---------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Grant the ends that were reported."""
        if not self._ended:
            return
        ended = list(self._ended.values())
        await self._grant({event.order_id: answer(event) for event in ended})
        for event in ended:
            self._ended.pop(event.order_id, None)

    async def _grant(self, answers: dict[str, str]) -> None:
        grants = await self._services.store.writer.call(waits.settle, list(answers.items()))
        self._counts["ended"] += len(grants)
        self._services.granted(grants)

    async def _recheck(self) -> None:
        """Ask the driver for every order that somebody waits for: a report may have been lost."""
        after = ""
        while rows := await self._services.store.read(waits.orders, after, _PAGE):
            answers = {}
            for row in rows:
                if (text := await self._ask(row)) is not None:
                    answers[row.key] = text
            if answers:
                await self._grant(answers)
            after = rows[-1].key

    async def _ask(self, row: Waiter) -> str | None:
        status = await self.driver.lookup(row.key)
        if status is None:
            if time() - row.since < self._lost_s:
                return None  # it is about to be sent
            self._counts["lost"] += 1
            log.warning(
                "order %s of run %s is unknown to the driver", row.key, row.run_id, extra={"run_id": row.run_id}
            )
            return _text({"order": row.key, "lost": True})
        if not status.ended:
            return None
        return answer(OrderEnded(row.key, status.state is OrderState.SUCCEEDED, status.result, status.error))

    # ---- robots ---------------------------------------------------------------------------------

    async def _give_back(self) -> None:
        """End the orders, and free the robots, of blocks that have no row any more."""
        busy = [robot for robot in await self.driver.robots() if robot.run_id or robot.order_run_id]
        runs = {run for robot in busy for run in (robot.run_id, robot.order_run_id) if run}
        if not runs:
            return
        rows = await self._services.store.read(waiters.load, sorted(runs))
        blocks, orders = _wanted(row for found in rows.values() for row in found)
        for robot in busy:
            try:
                await self._give_back_one(robot, blocks, orders)
            except Exception as error:  # one robot that does not answer keeps nobody else waiting
                self._counts["failures"] += 1
                log.warning("robot %s could not be given back, trying again later: %s", robot.id, error)

    async def _give_back_one(self, robot: RobotInfo, blocks: set[tuple[str, str | None]], orders: set[str]) -> None:
        if robot.order_id and robot.order_id not in orders:
            await self.driver.cancel(robot.order_id)
            self._counts["canceled"] += 1
        if robot.run_id and (robot.run_id, robot.path) not in blocks:
            await self.driver.release(robot.id, robot.run_id, robot.path or "")
            self._counts["released"] += 1

    async def _serve(self) -> None:
        """Ask for a robot for each who waits, in order; one who cannot be served holds nobody up."""
        after: Place = FIRST
        refused: set[str | None] = set()
        while rows := await self._services.store.read(waits.queue, after, _PAGE):
            for row in rows:
                criteria = _criteria(row)
                if criteria not in refused and not await self._serve_one(row):
                    refused.add(criteria)
            if len(rows) < _PAGE or not any(_idle(robot) for robot in await self.driver.robots()):
                return  # a robot that comes free will bring us back
            after = (rows[-1].rank, rows[-1].since, rows[-1].run_id, rows[-1].path)

    async def _serve_one(self, row: Waiter) -> bool:
        """False when there is no robot for it now. A request that can never be met fails its block."""
        request = msgspec.json.decode(row.want or "{}", type=SelectRequest)
        try:
            robot_id = await self.driver.select(request)
        except (NotFoundError, InputError) as error:
            given = {"error": str(error)}
        else:
            if robot_id is None:
                return False
            self._counts["selected"] += 1
            given = {"robot": robot_id}
        call = self._services.store.writer.call
        grants: list[Grant] = await call(waits.serve, row.run_id, row.path, _text(given))
        self._services.granted(grants)
        return True

    def statistics(self) -> BridgeStatistics:
        return BridgeStatistics(pending=len(self._ended), max_pending=self._max_pending, **self._counts)


def answer(event: OrderEnded) -> str:
    """What a block that waits for the order is granted, as JSON text."""
    return _text({"order": event.order_id, "ok": event.ok, "result": event.result, "error": event.error})


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _criteria(row: Waiter) -> str | None:
    """What a request asks for, without who asks: where it got nothing, the next alike gets nothing either."""
    request = msgspec.json.decode(row.want or "{}", type=SelectRequest)
    return _text([request.vehicles, request.groups, request.tags])


def _wanted(rows: Iterable[Waiter]) -> tuple[set[tuple[str, str | None]], set[str]]:
    """The blocks that want or have a robot, and the orders that somebody waits for."""
    blocks: set[tuple[str, str | None]] = set()
    orders: set[str] = set()
    for row in rows:
        if row.kind == HOLD or (row.kind == waits.ROBOT and row.key == waits.SELECT):
            blocks.add((row.run_id, row.path))
        elif row.kind == waits.ROBOT:
            orders.add(row.key)
    return blocks, orders


def _idle(robot: RobotInfo) -> bool:
    """Whether it could be given to somebody, if only to one who names it."""
    return robot.available or (robot.run_id is None and robot.order_id is None)


def _nothing() -> None:
    return None
