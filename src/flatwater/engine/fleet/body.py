"""One simulated robot: where it is, what it carries, its orders. Pure: the time is always given.

An order is planned when the robot sets out for it; from then on everything about it is known, so nothing ticks: what
the robot does at any time is worked out when somebody asks.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from msgspec import Struct

from flatwater.engine.driver import OrderState, RobotInfo, RobotOrder, RobotState, SelectRequest
from flatwater.engine.fleet.motion import Place, Trip, plan, stay
from flatwater.engine.fleet.option import FleetOptions, RobotSpec
from flatwater.engine.fleet.plant import Plant
from flatwater.errors import NotFoundError

CHARGE = "Charge"
GIVES_UP_S = 1.0
"""How long a robot takes to find out that it cannot do an order."""


class Job(Struct, kw_only=True):
    """An accepted order. Once under way: its trip, when it ends, and the error with which it will.

    ``arrives`` is false when the robot does not even set out.
    """

    order: RobotOrder
    sent_at: float
    state: OrderState = OrderState.ACCEPTED
    trip: Trip | None = None
    ends_at: float | None = None
    arrives: bool = True
    error: str | None = None
    result: dict[str, Any] = {}


class Robot:
    """The state of one robot. Battery 0 … 1."""

    def __init__(self, spec: RobotSpec, plant: Plant, options: FleetOptions) -> None:
        home = plant.nodes[plant.locate(spec.home)]
        self.spec = spec
        self.place = Place(home.id, home.x, home.y)
        self.battery = spec.battery
        self.station: str | None = spec.home
        self.last_station: str | None = None
        self.carrying: str | None = None
        self.holder: tuple[str, str] | None = None
        self.jobs: deque[Job] = deque()
        self.metres = 0.0
        self.taken_off = 0
        self.violations = 0
        self._plant = plant
        self._options = options

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def job(self) -> Job | None:
        """The order that it executes."""
        return self.jobs[0] if self.jobs else None

    # ---- selection ------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        return self.holder is None and not self.jobs and self.battery >= self._options.low_battery

    def meets(self, request: SelectRequest) -> bool:
        """Whether it is free for this request. Whoever names it gets it with a low battery too."""
        if self.holder is not None or self.jobs:
            return False
        if request.vehicles:
            return self.id in request.vehicles and self._fits(request)
        return self.available and self._fits(request)

    def _fits(self, request: SelectRequest) -> bool:
        in_group = not request.groups or not set(request.groups).isdisjoint(self.spec.groups)
        return in_group and set(request.tags) <= set(self.spec.tags)

    def metres_to(self, node: str) -> float:
        return plan(self._plant, self.place, node, 0.0, 1.0).ends_at

    def take_off(self) -> str | None:
        """Somebody removes what it carries; returns that."""
        carried, self.carrying = self.carrying, None
        self.taken_off += carried is not None
        return carried

    # ---- orders ---------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Job]:
        """Finish what is due and set out for what is next; returns the orders that this changed."""
        touched: dict[str, Job] = {}
        while self.jobs:
            job = self.jobs[0]
            if self.begin(now):
                touched[job.order.id] = job
            if job.ends_at is None or job.ends_at > now:
                break
            touched[job.order.id] = self.finish(job.ends_at)
        return list(touched.values())

    def begin(self, now: float) -> Job | None:
        """Set out for the first order, if it has not; returns it then."""
        job = self.job
        if job is None or job.state is not OrderState.ACCEPTED:
            return None
        job.state = OrderState.RUNNING
        order, options = job.order, self._options
        try:
            node = self.place.node if order.target is None else self._plant.locate(order.target)
            trip = plan(self._plant, self.place, node, now, options.metres_per_s * options.speed)
        except NotFoundError as error:  # the map has changed since the order was accepted
            return self._give_up(job, now, str(error))
        left = self.battery - trip.metres * options.drain_per_m
        if left <= 0 and order.operation != CHARGE:
            return self._give_up(job, now, f"the battery of {self.id} does not last for the way to {order.target}")
        job.trip = trip
        job.ends_at = trip.ends_at + self._operation_s(order, max(0.0, left)) / options.speed
        job.error = self._refusal(order) or self._mishap(order)
        return job

    def _give_up(self, job: Job, now: float, error: str) -> Job:
        job.trip = stay(self.place, now)
        job.arrives = False
        job.ends_at = now + GIVES_UP_S / self._options.speed
        job.error = error
        return job

    def finish(self, at: float) -> Job:
        """The first order is over at its time: the robot is there, with what the order did to it."""
        job = self.jobs.popleft()
        assert job.trip is not None
        self._arrive(job.trip, at)
        self.battery = self._battery(job, at)
        self.station, self.last_station = self._standing(job, at)
        if job.error is None:
            job.result = self._effect(job.order)
        job.state = OrderState.SUCCEEDED if job.error is None else OrderState.FAILED
        return job

    def cancel(self, order_id: str, at: float) -> Job | None:
        """Drop an order; the robot stops where it is. None when it has no such order."""
        job = next((job for job in self.jobs if job.order.id == order_id), None)
        if job is None:
            return None
        self.jobs.remove(job)
        if job.state is OrderState.RUNNING and job.trip is not None:
            station = self._standing(job, at)
            self._arrive(job.trip, at)
            self.battery = self._battery(job, at)
            self.station, self.last_station = station
        job.state = OrderState.CANCELED
        job.error = "canceled"
        return job

    def _arrive(self, trip: Trip, at: float) -> None:
        self.place = trip.stop(at)
        self.metres += trip.travelled(at)

    def _standing(self, job: Job, at: float) -> tuple[str | None, str | None]:
        """The station where it stands during ``job``, if it does, and the one before that."""
        assert job.trip is not None
        before = self.station or self.last_station
        if at < job.trip.ends_at:
            return None, before
        target = job.order.target
        if target is None or target == self.station or not job.arrives:
            return self.station, self.last_station
        return target, before

    def _operation_s(self, order: RobotOrder, battery: float) -> float:
        if order.operation is None:
            return 0.0
        if order.operation == CHARGE:
            return max(0.0, self._options.full_battery - battery) / self._options.charge_per_s
        return self._options.operation_s

    def _refusal(self, order: RobotOrder) -> str | None:
        if puts_down(order.operation):
            return None if self.carrying else f"{self.id} carries nothing that it could put down at {order.target}"
        if picks_up(order.operation) and self.carrying:
            return f"{self.id} carries {self.carrying} already and cannot load at {order.target}"
        return None

    def _mishap(self, order: RobotOrder) -> str | None:
        """Whether fate lets it fail; the same for the same order however often it is asked."""
        for failure in self._options.failures:
            if failure.operation == order.operation and (order.target or "").startswith(failure.at):
                fate = Random(f"{self._options.seed}/{order.id}").random()  # noqa: S311 - a simulation
                if fate < failure.probability:
                    return f"{order.operation} at {order.target} failed ({failure.probability:.0%} do, by simulation)"
                return None
        return None

    def _effect(self, order: RobotOrder) -> dict[str, Any]:
        if puts_down(order.operation):
            container, self.carrying = self.carrying, None
            return {"containerName": container}
        if picks_up(order.operation):
            self.carrying = order.goods_id or f"C-{order.id[-6:]}"
        return {"containerName": self.carrying}

    # ---- how it looks ---------------------------------------------------------------------------

    def _battery(self, job: Job, at: float) -> float:
        """The battery during ``job``, from what it was when the job began."""
        assert job.trip is not None
        options = self._options
        level = max(0.0, self.battery - job.trip.travelled(at) * options.drain_per_m)
        if at <= job.trip.ends_at or job.order.operation is None:
            return level
        if job.order.operation == CHARGE:
            charged = level + (at - job.trip.ends_at) * options.speed * options.charge_per_s
            return max(level, min(options.full_battery, charged))
        return max(0.0, level - options.drain_per_operation)

    def state(self, at: float) -> RobotState:
        job = self.job
        if job is None or job.trip is None:
            return RobotState.IDLE
        if at < job.trip.ends_at:
            return RobotState.MOVING
        return RobotState.CHARGING if job.order.operation == CHARGE else RobotState.WORKING

    def info(self, at: float) -> RobotInfo:
        """Everything about it at the time ``at``."""
        job = self.job if self.job is not None and self.job.trip is not None else None
        order, trip = (job.order, job.trip) if job is not None else (None, None)
        x, y = trip.position(at) if trip is not None else (self.place.x, self.place.y)
        station, last = (self.station, self.last_station) if job is None else self._standing(job, at)
        run_id, path = self.holder or (None, None)
        return RobotInfo(
            id=self.id,
            state=self.state(at),
            available=self.available,
            battery=round(self.battery if job is None else self._battery(job, at), 4),
            station=station,
            last_station=last,
            x=x,
            y=y,
            tags=self.spec.tags,
            groups=self.spec.groups,
            run_id=run_id,
            path=path,
            order_id=order.id if order else None,
            order_run_id=order.run_id if order else None,
            order_path=order.path if order else None,
            operation=order.operation if order else None,
            target=order.target if order else None,
            carrying=self.carrying,
            waypoints=trip.rest(at) if trip is not None else (),
        )


def puts_down(operation: str | None) -> bool:
    """``ForkUnload``, ``JackUnload`` …"""
    return operation is not None and operation.lower().endswith("unload")


def picks_up(operation: str | None) -> bool:
    """``ForkLoad``, ``JackLoad`` …"""
    return operation is not None and operation.lower().endswith("load") and not puts_down(operation)
