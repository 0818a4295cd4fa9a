"""The fleet's durable book: what of a robot and of an order survives a crash of the process."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from flatwater.engine.driver import OrderState, OrderStatus
from flatwater.engine.fleet.body import Job, Robot
from flatwater.engine.fleet.motion import Place
from flatwater.engine.fleet.plant import Plant
from flatwater.store.robot import OrderRow, RobotRow

_text = msgspec.json.Encoder(enc_hook=str).encode


class Attrs(Struct, kw_only=True):
    """What the robot table has no column for."""

    place: Place
    carrying: str | None = None
    metres: float = 0.0
    taken_off: int = 0
    violations: int = 0


class Outcome(Struct, kw_only=True, omit_defaults=True):
    """The ``result`` column of an ended order."""

    result: dict[str, object] = {}
    error: str | None = None


def robot_row(robot: Robot, now: float) -> RobotRow:
    run_id, path = robot.holder or (None, None)
    attrs = Attrs(
        place=robot.place,
        carrying=robot.carrying,
        metres=robot.metres,
        taken_off=robot.taken_off,
        violations=robot.violations,
    )
    return RobotRow(
        id=robot.id,
        tags=_text(robot.spec.tags).decode(),
        groups=_text(robot.spec.groups).decode(),
        battery=robot.battery,
        station=robot.station,
        last_station=robot.last_station,
        state=robot.state(now),
        locked_run=run_id,
        locked_path=path,
        attrs=_text(attrs).decode(),
        updated_at=now,
    )


def order_row(job: Job, now: float) -> OrderRow:
    order = job.order
    ended = job.state not in (OrderState.ACCEPTED, OrderState.RUNNING)
    outcome = Outcome(result=job.result, error=job.error)
    return OrderRow(
        id=order.id,
        robot_id=order.robot_id,
        run_id=order.run_id or None,
        path=order.path or None,
        operation=_text(job).decode(),
        state=job.state,
        sent_at=job.sent_at,
        ended_at=now if ended else None,
        result=_text(outcome).decode() if ended else None,
    )


def attrs_of(row: RobotRow) -> Attrs | None:
    return msgspec.json.decode(row.attrs, type=Attrs) if row.attrs else None


def recall(robot: Robot, row: RobotRow, plant: Plant) -> None:
    """Put the robot back into the state of ``row``, as far as the map still has the place."""
    attrs = attrs_of(row)
    if row.battery is not None:
        robot.battery = row.battery
    if row.locked_run is not None:
        robot.holder = row.locked_run, row.locked_path or ""
    if attrs is None:
        return
    robot.carrying, robot.metres = attrs.carrying, attrs.metres
    robot.taken_off, robot.violations = attrs.taken_off, attrs.violations
    if attrs.place.node in plant.nodes:
        robot.place, robot.station, robot.last_station = attrs.place, row.station, row.last_station


def job_of(row: OrderRow) -> Job:
    return msgspec.json.decode(row.operation, type=Job)


def status_of(row: OrderRow) -> OrderStatus:
    outcome = msgspec.json.decode(row.result, type=Outcome) if row.result else Outcome()
    return OrderStatus(
        id=row.id, state=OrderState(row.state), robot_id=row.robot_id, result=outcome.result, error=outcome.error
    )


def status(job: Job) -> OrderStatus:
    """As `status_of`, of an order in memory. The error of an open order is fate that nobody knows yet."""
    ended = job.state not in (OrderState.ACCEPTED, OrderState.RUNNING)
    return OrderStatus(
        id=job.order.id,
        state=job.state,
        robot_id=job.order.robot_id,
        result=job.result if ended else {},
        error=job.error if ended else None,
    )
