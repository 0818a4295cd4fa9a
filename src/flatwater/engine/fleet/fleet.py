"""A fleet of simulated robots behind the driver interface: the default driver.

It is an outside system: it keeps a durable book of its own (`flatwater.store.robot`), in which it writes before it
answers, and in which it finds its robots and their open orders after a crash. The simulated world does not stand still
meanwhile: an order that would have ended while the process was down has ended.

Robots pass through each other; everything else costs time and battery. When nothing is under way nothing runs.
One database can hold the book of one fleet, and one process at a time may simulate it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from flatwater.bounded import Ledger, TaskGroup, Usage
from flatwater.engine.driver import (
    DriverEvent,
    Listener,
    OrderEnded,
    OrderState,
    OrderStatus,
    RobotChanged,
    RobotFree,
    RobotInfo,
    RobotOrder,
    SelectRequest,
)
from flatwater.engine.fleet.body import CHARGE, Job, Robot
from flatwater.engine.fleet.book import job_of, order_row, recall, robot_row, status, status_of
from flatwater.engine.fleet.option import FleetOptions, RobotSpec
from flatwater.engine.fleet.plant import Plant
from flatwater.errors import ClosedError, ConflictError, LimitError, NotFoundError
from flatwater.store import robot as book
from flatwater.store.ident import new_id

if TYPE_CHECKING:
    from flatwater.store import Store

log = logging.getLogger(__name__)
PRUNE_EVERY = 100
"""Ended orders after which old ones are forgotten."""


class FleetStatistics(Usage, frozen=True, kw_only=True):
    """``size`` open orders of ``bound``; ``accepted`` … ``refused`` orders since the start of the process.

    Over the fleet's whole life: ``violations`` (ids that were sent again), ``metres``, and ``taken_off`` (loads that
    were removed by hand from robots that were given back with them).
    """

    robots: int
    available: int
    accepted: int
    succeeded: int
    failed: int
    canceled: int
    refused: int
    violations: int
    metres: float
    taken_off: int


class Fleet:
    """Simulated robots on ``plant``. Used as ``async with Fleet(…) as fleet:``; a `RobotDriver`.

    ``robots`` that the book does not know start at their homes; those it knows go on where they were.
    """

    kind = "robot fleet"

    def __init__(
        self,
        store: Store,
        plant: Plant,
        robots: Iterable[RobotSpec],
        *,
        options: FleetOptions | None = None,
        ledger: Ledger | None = None,
        name: str = "simulated fleet",
    ) -> None:
        self.name = name
        self.plant = plant
        self.options = options or FleetOptions()
        self._store = store
        self._robots = {spec.id: Robot(spec, plant, self.options) for spec in robots}
        if len(self._robots) > self.options.max_robots:
            raise LimitError(f"{len(self._robots)} robots", where=name, hint="raise max_robots")
        for charger in self.options.chargers:
            plant.locate(charger)
        ledger = ledger or Ledger()
        self._tasks = TaskGroup(f"{name} clock", max_tasks=1, ledger=ledger)
        self._listeners: dict[int, Listener] = {}
        self._ids = 0
        self._sending: set[str] = set()
        self._nudge = asyncio.Event()
        self._open = False
        self._unpruned = PRUNE_EVERY
        self._counts = dict.fromkeys(("accepted", "succeeded", "failed", "canceled", "refused"), 0)
        ledger.register(self)

    # ---- lifetime -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._load()
        await self._tasks.__aenter__()
        self._open = True
        self._tasks.start(self._run(), name=self.name)
        self._nudge.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop simulating. Orders under way stay in the book."""
        self._open = False
        await self._tasks.stop()
        with suppress(ClosedError):
            await self._store.writer.flush()  # what it has done last is in the book, too

    async def _load(self) -> None:
        rows, orders = await self._store.read(book.load)
        for row in rows:
            robot = self._robots.get(row.id)
            if robot is not None:
                recall(robot, row, self.plant)
        gone = []
        for order in orders:
            job = job_of(order)
            robot = self._robots.get(order.robot_id)
            if robot is not None:
                robot.jobs.append(job)
            else:
                job.state, job.error = OrderState.FAILED, f"robot {order.robot_id} has left the fleet"
                gone.append(book.order_put(order_row(job, time())))
        for robot in self._robots.values():  # the one under way first, whatever the clock said when it was sent
            ordered = sorted(robot.jobs, key=lambda job: (job.state is OrderState.ACCEPTED, job.sent_at))
            robot.jobs.clear()
            robot.jobs.extend(ordered)
        now = time()
        await self._store.writer.put(*gone, *(book.put(robot_row(robot, now)) for robot in self._robots.values()))

    # ---- the driver's interface -----------------------------------------------------------------

    async def select(self, request: SelectRequest) -> str | None:
        """Hold the nearest free robot that meets ``request``; among equals the one with the fullest battery."""
        holder = (request.run_id, request.path)
        held = next((robot for robot in self._robots.values() if robot.holder == holder), None)
        if held is None:
            free = [robot for robot in self._robots.values() if self._may(robot, request)]
            if not free:
                return None
            held = min(free, key=lambda robot: (self._metres(robot, request), -robot.battery, robot.id))
            held.holder = holder
            try:
                await self._write(held)
            except Exception:
                held.holder = None
                raise
            self._changed(held)
        return held.id

    def _may(self, robot: Robot, request: SelectRequest) -> bool:
        return robot.meets(request) and (request.robot is None or request.robot == robot.id)

    def _metres(self, robot: Robot, request: SelectRequest) -> float:
        return robot.metres_to(self.plant.locate(request.key_route[0])) if request.key_route else 0.0

    async def release(self, robot_id: str, run_id: str, path: str) -> None:
        """Give the robot back. A load that it still has is taken off by hand: nobody else knows what to do with it."""
        robot = self._robots.get(robot_id)
        if robot is None or robot.holder != (run_id, path):
            return
        robot.holder = None
        self._take_off(robot)
        await self._write(robot)
        self._changed(robot)
        self._rest(robot)

    async def send(self, order: RobotOrder) -> None:
        """Accept ``order`` for its robot, after those that the robot has already.

        Raises ConflictError when its id was accepted before or its run does not hold the robot, NotFoundError for an
        unknown robot or station, LimitError when the robot's queue is full.
        """
        if order.id in self._sending:
            self._counts["refused"] += 1
            await self._protest(order)
        self._sending.add(order.id)
        try:
            await self._accept(await self._check(order), Job(order=order, sent_at=time()))
        except Exception:
            self._counts["refused"] += 1
            raise
        finally:
            self._sending.discard(order.id)

    async def _check(self, order: RobotOrder) -> Robot:
        if not self._open:
            raise ClosedError("no orders are accepted", where=self.name)
        if await self.lookup(order.id) is not None:
            await self._protest(order)
        robot = self._robots.get(order.robot_id)
        if robot is None:
            raise NotFoundError(f"there is no robot {order.robot_id!r}", hint=f"there are {', '.join(self._robots)}")
        if robot.holder is None or robot.holder[0] != order.run_id:
            raise ConflictError(f"robot {robot.id} is not held by run {order.run_id}", hint="select it first")
        if order.target is not None:
            self.plant.route(robot.place.node, self.plant.locate(order.target))
        if len(robot.jobs) >= self.options.max_queue:
            raise LimitError(f"robot {robot.id} has {len(robot.jobs)} orders", hint="raise max_queue")
        return robot

    async def _protest(self, order: RobotOrder) -> NoReturn:
        """An id came a second time: that goes on record, for it must never happen."""
        robot = self._robots.get(order.robot_id)
        if robot is not None:
            robot.violations += 1
            await self._write(robot)
        raise ConflictError(f"order {order.id} was accepted before", hint="look it up before sending it again")

    async def _accept(self, robot: Robot, job: Job) -> None:
        robot.jobs.append(job)
        robot.begin(time())
        self._counts["accepted"] += 1
        self._nudge.set()  # now: whoever sends may be canceled while it is written, and the order stands all the same
        try:
            await self._write(robot, job)
        except Exception:
            self._counts["accepted"] -= 1
            robot.cancel(job.order.id, time())
            raise
        self._changed(robot)

    async def lookup(self, order_id: str) -> OrderStatus | None:
        """What the book says of an order; None when it never arrived (or ended more than ``keep_s`` ago)."""
        for robot in self._robots.values():
            for job in robot.jobs:
                if job.order.id == order_id:
                    return status(job)
        row = await self._store.read(book.order, order_id)
        return None if row is None else status_of(row)

    async def cancel(self, order_id: str) -> None:
        """Drop an order; a robot under way stops where it is, and what it carries stays on it."""
        now = time()
        for robot in self._robots.values():
            job = robot.cancel(order_id, now)
            if job is None:
                continue
            begun = robot.begin(now)
            await self._write(robot, job, *([begun] if begun else []))
            self._report(robot, job)
            self._nudge.set()
            return

    async def robots(self) -> list[RobotInfo]:
        now = time()
        return [robot.info(now) for robot in self._robots.values()]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` for what happens; returns the end of that. Raises LimitError above ``max_listeners``."""
        if len(self._listeners) >= self.options.max_listeners:
            raise LimitError(f"{len(self._listeners)} listeners", where=self.name, hint="raise max_listeners")
        self._ids += 1
        mine = self._ids
        self._listeners[mine] = listener

        def leave() -> None:
            self._listeners.pop(mine, None)

        return leave

    # ---- time passes ----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                self._nudge.clear()
                await self._settle(time())
                await self._sleep()
            except ClosedError:
                return
            except Exception:
                log.exception("%s: could not write its book; trying again", self.name)
                await asyncio.sleep(self.options.retry_s)

    async def _sleep(self) -> None:
        """Until the first order under way ends, or something changes."""
        ends = [robot.job.ends_at for robot in self._robots.values() if robot.job and robot.job.ends_at is not None]
        try:
            async with asyncio.timeout(max(0.0, min(ends) - time()) if ends else None):
                await self._nudge.wait()
        except TimeoutError:
            return

    async def _settle(self, now: float) -> None:
        """Finish what is due, set out for what is next, send idle robots to charge."""
        for robot in self._robots.values():
            touched = robot.advance(now)
            if touched:
                self._take_off(robot)
                await self._write(robot, *touched)
                for job in touched:
                    self._report(robot, job)
            if touched or robot.battery < self.options.low_battery:
                self._rest(robot)
        if self._unpruned >= PRUNE_EVERY:
            self._unpruned = 0
            await self._store.writer.call(book.prune, now - self.options.keep_s, self.options.max_prune)

    def _report(self, robot: Robot, job: Job) -> None:
        """Tell what has happened to an order, once that is in the book."""
        if job.state is not OrderState.RUNNING:
            self._counts[job.state.lower()] += 1
            self._unpruned += 1
            self._emit(OrderEnded(job.order.id, job.state is OrderState.SUCCEEDED, job.result, job.error))
        self._changed(robot)

    def _take_off(self, robot: Robot) -> None:
        """Nobody wants the robot but it carries something: by hand, for nobody else knows what to do with it."""
        if robot.holder is None and not robot.jobs and (carried := robot.take_off()) is not None:
            log.warning("robot %s was given back with %s on it: taken off by hand", robot.id, carried)

    def _rest(self, robot: Robot) -> None:
        """What a robot does that nobody wants: charge when it must, else say that it is free."""
        if robot.holder is not None or robot.jobs:
            return
        charger = self._charger(robot) if robot.battery < self.options.low_battery else None
        if charger is not None:
            order = RobotOrder(id=new_id(), robot_id=robot.id, run_id="", path="", target=charger, operation=CHARGE)
            robot.jobs.append(Job(order=order, sent_at=time()))
            self._nudge.set()
        elif robot.available:
            self._emit(RobotFree(robot.id))

    def _charger(self, robot: Robot) -> str | None:
        """The nearest charger to which no robot is bound."""
        jobs = [other.job for other in self._robots.values() if other.job is not None]
        taken = {job.order.target for job in jobs if job.order.operation == CHARGE}
        free = [charger for charger in self.options.chargers if charger not in taken]
        return min(free, key=lambda charger: robot.metres_to(self.plant.locate(charger)), default=None)

    # ---- the book, and those who listen -----------------------------------------------------------

    async def _write(self, robot: Robot, *jobs: Job) -> None:
        """Record the robot and its orders in one transaction; return when that is durable."""
        now = time()
        orders = {job.order.id: book.order_put(order_row(job, now)) for job in jobs}
        await self._store.writer.put(book.put(robot_row(robot, now)), *orders.values())

    def _changed(self, robot: Robot) -> None:
        if self._listeners:
            self._emit(RobotChanged(robot.info(time())))

    def _emit(self, event: DriverEvent) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(event)
            except Exception:
                log.exception("%s: a listener failed", self.name)

    def statistics(self) -> FleetStatistics:
        robots = self._robots.values()
        return FleetStatistics(
            size=sum(len(robot.jobs) for robot in robots),
            bound=len(self._robots) * self.options.max_queue,
            robots=len(self._robots),
            available=sum(robot.available for robot in robots),
            metres=round(sum(robot.metres for robot in robots), 1),
            taken_off=sum(robot.taken_off for robot in robots),
            violations=sum(robot.violations for robot in robots),
            **self._counts,
        )
