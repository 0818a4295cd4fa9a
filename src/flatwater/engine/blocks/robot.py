"""Blocks that use robots, through the driver that the engine was given.

`CSelectAgvBp` waits for a robot and has it while its children run; `CAgvOperationBp` sends it one order and waits for
its end. Both wait in the store, so a run may leave memory meanwhile, and both find their robot and their order again
after a crash (`flatwater.engine.robot` says how).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from flatwater.engine.block import BlockCall, block
from flatwater.engine.driver import OrderState, OrderStatus, RobotInfo, RobotOrder, SelectRequest
from flatwater.errors import RunError
from flatwater.store import robot_waiter as waits
from flatwater.store.robot_waiter import HOLD, ROBOT, SELECT

if TYPE_CHECKING:
    from flatwater.engine.robot import RobotBridge
    from flatwater.engine.wait import Wait
    from flatwater.store.waiter import Waiter


class Selected(Struct, frozen=True, rename="camel"):
    selected_agv_id: str


class Operated(Struct, frozen=True, rename="camel"):
    container_name: str | None = None


class Station(Struct, frozen=True, rename="camel"):
    station: str | None
    last_station: str | None


class Battery(Struct, frozen=True, rename="camel"):
    battery_level: float | None


@block("CSelectAgvBp", family="robot", branches=("default",), camel=True)
async def select_agv(
    vehicle: Any = None,
    group: Any = None,
    tag: Any = None,
    key_route: Any = None,
    priority: int | None = None,
    *,
    call: BlockCall,
) -> Selected:
    """Waits for a robot and has it while the children run.

    ``vehicle`` and ``group`` name one or several (a list, or text with commas), one of which it must be; of ``tag`` it
    must have all. ``keyRoute`` are stations that it will visit: the robot nearest to the first is chosen.
    """
    bridge = bridge_of(call)
    request = SelectRequest(
        run_id=call.run_id,
        path=call.path,
        priority=call.priority if priority is None else priority,
        vehicles=names(vehicle),
        groups=names(group),
        tags=names(tag),
        key_route=names(key_route),
    )
    with bridge.looking():  # the row goes with the end of the block, and the robot with the row
        outputs = Selected(await _acquire(call, bridge, request))
        await call.children(robot=outputs.selected_agv_id, outputs=msgspec.to_builtins(outputs))
    return outputs


async def _acquire(call: BlockCall, bridge: RobotBridge, request: SelectRequest) -> str:
    """The robot that this block has, or the next that it gets."""
    reason, rank, put = _wanted(request), call.rank - _earlier_s(call, request), call.services.store.writer.put
    wait = call.waited()
    if wait is not None and wait.kind == HOLD:
        if await bridge.keeps(call.run_id, call.path, wait.key):
            wait.granted = wait.key  # it is no wait that anybody should see
            return str(wait.key)
        call.log(f"robot {wait.key} was lost meanwhile; waiting for another", "warning")
        wait = None
    known = call.expect(ROBOT, SELECT, reason=reason) if wait is None else wait
    row = _row(call, known, request, rank)
    if wait is None:
        put(waits.put(row))
        bridge.look()
    answer = await call.wait(ROBOT, SELECT, reason=reason, insert=False)
    if "error" in answer:
        raise RunError(answer["error"], where=call.path)
    put(waits.hold(row, answer["robot"]))
    return str(answer["robot"])


def _earlier_s(call: BlockCall, request: SelectRequest) -> float:
    """A priority of the block's own moves it in the queue as if the run had it."""
    return (request.priority - call.priority) * call.services.options.ageing_s


def _wanted(request: SelectRequest) -> str:
    parts = [
        " or ".join(request.vehicles),
        f"of group {' or '.join(request.groups)}" if request.groups else "",
        f"with {' and '.join(request.tags)}" if request.tags else "",
        f"to {request.key_route[0]}" if request.key_route else "",
    ]
    return " ".join(["a robot", *(part for part in parts if part)])


@block("CAgvOperationBp", family="robot", recovery="reattach", camel=True)
async def operate(
    target_site_label: str | None = None,
    script_name: str | None = None,
    goods_id: str | None = None,
    *,
    call: BlockCall,
    **properties: Any,
) -> Operated:
    """Sends the robot of the ``CSelectAgvBp`` around this block to a place, to do something there.

    ``targetSiteLabel`` is a site or a station of the robots' map, ``scriptName`` what to do (``ForkLoad``,
    ``ForkUnload``, ``Charge`` …), ``goodsId`` the container to carry; further parameters go to the robot as they are.
    Ends when the robot has done it; fails with the robot's reason when it could not.
    """
    bridge = bridge_of(call)
    robot = robot_of(call)
    order = RobotOrder(
        id=call.order_id,
        robot_id=robot,
        run_id=call.run_id,
        path=call.path,
        target=target_site_label or None,
        operation=script_name or None,
        goods_id=goods_id or None,
        properties={name: value for name, value in properties.items() if value is not None},
    )
    with bridge.looking():  # an order that nobody waits for any more is canceled
        answer = await _carry_out(call, bridge, order)
    if not answer["ok"]:
        raise RunError(answer["error"] or "the robot gave no reason", where=call.path)
    return Operated(answer["result"].get("containerName"))


async def _carry_out(call: BlockCall, bridge: RobotBridge, order: RobotOrder) -> dict[str, Any]:
    """Send the order unless it has arrived already, and wait for its end; that may have come long ago.

    When the driver cannot be asked the block just waits: the bridge goes on asking, and tells what it hears.
    """
    reason = _doing(order)
    wait = call.waited()
    again = wait is not None and wait.granted is msgspec.UNSET
    known = await _lookup(bridge, order) if again else None
    while True:
        if wait is None or wait.granted is msgspec.UNSET:
            if isinstance(known, OrderStatus) and known.ended:
                return {"ok": known.state is OrderState.SUCCEEDED, "result": known.result, "error": known.error}
            await _expect(call, order, reason)
            if known is None:
                await _send(call, bridge, order)
        answer: dict[str, Any] = await call.wait(ROBOT, order.id, reason=reason, insert=False)
        if answer["order"] == order.id and not answer.get("lost"):
            return answer
        wait, known = call.waited(), await _lookup(bridge, order)


async def _lookup(bridge: RobotBridge, order: RobotOrder) -> OrderStatus | Exception | None:
    """What the driver knows of the order; the error when it cannot say."""
    try:
        return await bridge.driver.lookup(order.id)
    except Exception as error:
        return error


async def _expect(call: BlockCall, order: RobotOrder, reason: str) -> None:
    """Be on record as waiting before the order goes out, so that no report of its end can come too early."""
    if call.waited() is None:
        wait = call.expect(ROBOT, order.id, reason=reason)
        await call.services.store.writer.put(waits.put(_row(call, wait, None, call.rank)))


async def _send(call: BlockCall, bridge: RobotBridge, order: RobotOrder) -> None:
    """Send. When that fails and nobody can say that the order did not arrive, it counts as sent."""
    try:
        await bridge.driver.send(order)
    except Exception as error:
        if await _lookup(bridge, order) is None:
            raise
        call.log(f"order {order.id} may have arrived all the same: {error}", "warning")


def _doing(order: RobotOrder) -> str:
    where = f" at {order.target}" if order.target else ""
    return f"robot {order.robot_id}: {order.operation or 'drive'}{where}"


@block("VehicleStationBp", family="robot", pure=False, camel=True)
async def vehicle_station(*, call: BlockCall) -> Station:
    """Where the robot of the ``CSelectAgvBp`` around this block stands, and where it stood before."""
    robot = await _info(call)
    return Station(robot.station, robot.last_station)


@block("GetBatteryLevelBp", family="robot", camel=True)
async def battery_level(*, call: BlockCall) -> Battery:
    """The battery of the robot of the ``CSelectAgvBp`` around this block, 0 … 1."""
    return Battery((await _info(call)).battery)


async def _info(call: BlockCall) -> RobotInfo:
    robot = robot_of(call)
    found = await bridge_of(call).robot(robot)
    if found is None:
        raise RunError(f"the driver knows no robot {robot}", where=call.path)
    return found


def _row(call: BlockCall, wait: Wait, want: SelectRequest | None, rank: float) -> Waiter:
    encoded = None if want is None else msgspec.json.encode(want).decode()
    return msgspec.structs.replace(wait.row(call.run_id, rank), want=encoded)


def bridge_of(call: BlockCall) -> RobotBridge:
    """Raises RunError when the engine has no driver."""
    if call.services.robots is None:
        raise RunError("there are no robots here", where=call.path, hint="give the engine a robot driver")
    return call.services.robots


def robot_of(call: BlockCall) -> str:
    """The robot of the ``CSelectAgvBp`` around the block. Raises RunError when there is none."""
    if call.robot is None:
        raise RunError("no CSelectAgvBp stands around this block", where=call.path, hint="put it into one")
    return call.robot


def names(value: Any) -> tuple[str, ...]:
    """One name or several: a list, the JSON text of a list, or text with commas.

    Raises RunError when it is none of these.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = msgspec.json.decode(text)
            except msgspec.DecodeError as error:
                raise RunError(f"{text[:100]!r} is not a list of names: {error}") from None
        else:
            value = text.split(",")
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        value = [value]
    return tuple(name for each in value if (name := str(each).strip()))
