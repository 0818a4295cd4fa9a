"""What Flatwater asks of whatever moves the robots: implement `RobotDriver` and pass it to the engine.

A driver is the door to an *outside system* with a memory of its own: a fleet manager with a REST interface, robots that
speak VDA 5050 over MQTT, or the simulated fleet of `flatwater.engine.fleet`. The server may be killed at any moment
while robots drive on, so the contract is about what must still be true afterwards:

- **One robot, one owner.** A robot is held by one block of one run, the pair ``(run_id, path)``. `select` for the same
  pair gives the same robot again, `release` by anybody else than the holder changes nothing.
- **At most once.** The id of an order is on Flatwater's disk before `send` is called, and after a restart the engine
  asks `lookup` before it sends that id again. A driver must refuse an id that it knows.
- **Reports may be lost.** `listen` makes things fast, not right: the engine also asks `lookup` and `robots` at its
  start and every few seconds while somebody waits.

All times are seconds since the epoch, lengths in metres. Methods are called from the event loop and must not block it.
They raise `flatwater.errors.FlatwaterError` (or anything else) when the outside cannot be reached; the engine tries
again later, except in `send`, whose failure fails the block when `lookup` does not know the order.

How to write one, with the mapping to VDA 5050: ``docs/howto/robot-driver.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct


class OrderState(StrEnum):
    """ACCEPTED orders queue at their robot; the last three states are final."""

    ACCEPTED = "ACCEPTED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


OPEN = frozenset({OrderState.ACCEPTED, OrderState.RUNNING})


class RobotState(StrEnum):
    """OFFLINE robots, and those in ERROR, are not given to anybody."""

    IDLE = "IDLE"
    MOVING = "MOVING"
    WORKING = "WORKING"
    CHARGING = "CHARGING"
    ERROR = "ERROR"
    OFFLINE = "OFFLINE"


class SelectRequest(Struct, frozen=True, kw_only=True):
    """Which robots would do for the block ``path`` of the run ``run_id``.

    Empty criteria are met by any robot. ``vehicles`` are ids, one of which it must be; it must be in one of ``groups``
    and have all ``tags``. ``key_route`` names the stations that it will visit, in order: the robot that gets to the
    first of them soonest is the best.

    ``robot`` is set when this pair held a robot before the engine restarted: a driver that has no durable memory of
    its own must give exactly that robot, and is asked so for every such pair before it is asked for anybody else.
    """

    run_id: str
    path: str
    priority: int = 0
    vehicles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    key_route: tuple[str, ...] = ()
    robot: str | None = None


class RobotOrder(Struct, frozen=True, kw_only=True):
    """Go to ``target`` and do ``operation`` there.

    ``id`` is unique for ever (26 characters). ``target`` is a station: a site's id or a name on the robots' own map;
    ``None`` means where the robot stands. ``operation`` is a name that the fleet knows (``ForkLoad``, ``ForkUnload``,
    ``Charge`` …) or ``None`` for a mere drive. ``goods_id`` names the container to be carried. ``properties`` are the
    block's other parameters, passed on as they are.
    """

    id: str
    robot_id: str
    run_id: str
    path: str
    target: str | None = None
    operation: str | None = None
    goods_id: str | None = None
    properties: dict[str, Any] = {}


class OrderStatus(Struct, frozen=True, kw_only=True):
    """What the outside knows of an order. ``result`` may hold ``containerName``; ``error`` says why it FAILED."""

    id: str
    state: OrderState
    robot_id: str
    result: dict[str, Any] = {}
    error: str | None = None

    @property
    def ended(self) -> bool:
        return self.state not in OPEN


class RobotInfo(Struct, frozen=True, kw_only=True):
    """A robot now.

    ``battery`` is 0 … 1. ``station`` is where it stands (``None`` between stations), ``last_station`` the one before.
    ``run_id`` and ``path`` name its holder. ``order_id`` is the order that it executes, with the run and block that
    sent it in ``order_run_id`` and ``order_path``. ``waypoints`` are ``(at, x, y)`` of the rest of its way, so that a
    display can move it without asking again. ``available`` says whether a `select` could get it.
    """

    id: str
    state: RobotState
    available: bool = False
    battery: float | None = None
    station: str | None = None
    last_station: str | None = None
    x: float | None = None
    y: float | None = None
    tags: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    run_id: str | None = None
    path: str | None = None
    order_id: str | None = None
    order_run_id: str | None = None
    order_path: str | None = None
    operation: str | None = None
    target: str | None = None
    carrying: str | None = None
    waypoints: tuple[tuple[float, float, float], ...] = ()
    error: str | None = None


class RobotFree(Struct, frozen=True, tag="free"):
    """A robot became available: whoever waits for one is asked for again."""

    robot_id: str


class RobotChanged(Struct, frozen=True, tag="changed"):
    """A robot started, arrived, charges …: for displays only."""

    robot: RobotInfo


class OrderEnded(Struct, frozen=True, tag="ended"):
    """An order is over; ``ok`` is false when it failed (``error`` says why) or was canceled."""

    order_id: str
    ok: bool
    result: dict[str, Any] = {}
    error: str | None = None


DriverEvent: TypeAlias = RobotFree | RobotChanged | OrderEnded
Listener: TypeAlias = Callable[[DriverEvent], None]


@runtime_checkable
class RobotDriver(Protocol):
    """The door to a fleet of robots. What each method must keep is said in the module's text."""

    async def select(self, request: SelectRequest) -> str | None:
        """Hold the best free robot for ``request`` and return its id; ``None`` when none is free.

        Idempotent by ``(run_id, path)``. Later, when a robot comes free, the driver reports `RobotFree`. Raises
        `NotFoundError` or `InputError` for a request that can never be met: that fails the block.
        """
        ...

    async def release(self, robot_id: str, run_id: str, path: str) -> None:
        """Give the robot back; no effect unless this pair holds it."""
        ...

    async def send(self, order: RobotOrder) -> None:
        """Accept ``order``; when this returns, `lookup` knows it, also after a crash of either side.

        Raises `ConflictError` for an id that was accepted before, `NotFoundError` for an unknown robot or station.
        """
        ...

    async def lookup(self, order_id: str) -> OrderStatus | None:
        """What became of an order; ``None``: it never arrived, so it may be sent."""
        ...

    async def cancel(self, order_id: str) -> None:
        """Stop the order as soon as it is safe, and report `OrderEnded`; no effect when it is over or unknown."""
        ...

    async def robots(self) -> list[RobotInfo]:
        """Every robot, as it is now."""
        ...

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` in the event loop's thread for what happens; returns the end of that."""
        ...
