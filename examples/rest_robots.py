"""A robot driver for a fleet manager with a REST interface, to be adapted to yours.

The fleet manager of this example has four calls, and knows nothing of Flatwater:

    GET    /robots        → [{"id", "idle", "battery", "station", "order"}]
    POST   /orders        {"id", "robot", "target", "operation", "goods"} → 201, or 409 when it knows the id
    GET    /orders/{id}   → {"id", "robot", "state", "container", "error"}, or 404
    DELETE /orders/{id}   stops it

It cannot hold a robot for somebody, so the driver does, in its own memory. That is allowed: after a restart the engine
asks for every robot that a run still has, by name (`SelectRequest.robot`), before it asks for any other.

    async with RestRobots("http://fleet.example:8080") as robots, Engine(store, driver=robots) as engine: ...
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp

from flatwater.bounded import Ledger, TaskGroup
from flatwater.engine.driver import (
    Listener,
    OrderEnded,
    OrderState,
    OrderStatus,
    RobotFree,
    RobotInfo,
    RobotOrder,
    RobotState,
    SelectRequest,
)
from flatwater.errors import ConflictError, LimitError, RunError

log = logging.getLogger(__name__)
STATES = {
    "queued": OrderState.ACCEPTED,
    "running": OrderState.RUNNING,
    "done": OrderState.SUCCEEDED,
    "failed": OrderState.FAILED,
    "stopped": OrderState.CANCELED,
}


class RestRobots:
    """The driver. It polls every ``poll_s`` seconds, for a fleet manager that could push would be asked less."""

    def __init__(self, url: str, *, poll_s: float = 1.0, timeout_s: float = 5.0, max_orders: int = 1_000) -> None:
        self._url = url.rstrip("/")
        self._poll_s = poll_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._max_orders = max_orders
        self._held: dict[str, tuple[str, str]] = {}  # (run id, path) by robot
        self._open: dict[str, RobotOrder] = {}
        self._listeners: list[Listener] = []
        self._tasks = TaskGroup("rest robots", max_tasks=1, ledger=Ledger())

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        await self._tasks.__aenter__()
        self._tasks.start(self._watch(), name="poll")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()
        await self._session.close()

    # ---- robots ---------------------------------------------------------------------------------

    async def select(self, request: SelectRequest) -> str | None:
        pair = (request.run_id, request.path)
        mine = next((robot for robot, holder in self._held.items() if holder == pair), None)
        if mine is not None:
            return mine
        for robot in await self.robots():
            if robot.id not in self._held and self._suits(robot, request):  # nothing is awaited from here on
                self._held[robot.id] = pair
                return robot.id
        return None

    def _suits(self, robot: RobotInfo, request: SelectRequest) -> bool:
        if request.robot is not None:  # it was theirs before a restart, whatever it does now
            return robot.id == request.robot
        return robot.available and (not request.vehicles or robot.id in request.vehicles)

    async def release(self, robot_id: str, run_id: str, path: str) -> None:
        if self._held.get(robot_id) == (run_id, path):
            del self._held[robot_id]
            self._tell(RobotFree(robot_id))

    async def robots(self) -> list[RobotInfo]:
        _, found = await self._call("GET", "/robots")
        return [self._info(robot) for robot in found]

    def _info(self, robot: dict[str, Any]) -> RobotInfo:
        run_id, path = self._held.get(robot["id"], (None, None))
        order = self._open.get(robot["order"] or "")
        return RobotInfo(
            id=robot["id"],
            state=RobotState.IDLE if robot["idle"] else RobotState.MOVING,
            available=robot["idle"] and run_id is None,
            battery=robot["battery"],
            station=robot["station"],
            run_id=run_id,
            path=path,
            order_id=robot["order"],
            order_run_id=order.run_id if order else None,
            order_path=order.path if order else None,
        )

    # ---- orders ---------------------------------------------------------------------------------

    async def send(self, order: RobotOrder) -> None:
        if len(self._open) >= self._max_orders:
            raise LimitError(f"{self._max_orders} orders are open", hint="raise max_orders")
        body = {"id": order.id, "robot": order.robot_id, "target": order.target, "operation": order.operation}
        status, answer = await self._call("POST", "/orders", {**body, "goods": order.goods_id})
        if status == 409:
            raise ConflictError(f"the fleet manager knows order {order.id}")
        if status >= 400:
            raise RunError(f"the fleet manager refused the order: {answer}")
        self._open[order.id] = order

    async def lookup(self, order_id: str) -> OrderStatus | None:
        status, found = await self._call("GET", f"/orders/{order_id}")
        if status == 404:
            return None
        result = {"containerName": found["container"]} if found["container"] else {}
        return OrderStatus(
            id=order_id, state=STATES[found["state"]], robot_id=found["robot"], result=result, error=found["error"]
        )

    async def cancel(self, order_id: str) -> None:
        await self._call("DELETE", f"/orders/{order_id}")

    # ---- news -----------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, event: OrderEnded | RobotFree) -> None:
        for listener in list(self._listeners):
            listener(event)

    async def _watch(self) -> None:
        """Look at the orders that are open here; those of before a restart are looked up by the engine."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                for order_id in list(self._open):
                    status = await self.lookup(order_id)
                    if status is None or status.ended:
                        del self._open[order_id]
                    if status is not None and status.ended:
                        ok = status.state is OrderState.SUCCEEDED
                        self._tell(OrderEnded(order_id, ok, status.result, status.error))
            except (aiohttp.ClientError, TimeoutError) as error:
                log.warning("the fleet manager does not answer: %s", error)

    async def _call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self._session.request(method, self._url + path, json=body) as answer:
            return answer.status, await answer.json(content_type=None)
