"""Robots, as their driver sees them."""

from __future__ import annotations

from flatwater.engine.driver import RobotInfo
from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.base import MAX_ITEMS
from flatwater.server.type.site import Robot, RobotList

table = Table("robots")


@table.add("GET", "/api/robots")
async def list_robots(service: Service) -> RobotList:
    """The robots of the fleet; none when no driver is set up."""
    driver = service.engine.services.driver
    found = await driver.robots() if driver is not None else []
    return RobotList([robot_info(robot) for robot in found[:MAX_ITEMS]])


def robot_info(robot: RobotInfo) -> Robot:
    return Robot(
        id=robot.id,
        state=str(robot.state),
        available=robot.available,
        battery=robot.battery,
        station=robot.station,
        last_station=robot.last_station,
        x=robot.x,
        y=robot.y,
        tags=robot.tags,
        groups=robot.groups,
        run=robot.run_id,
        path=robot.path,
        order_id=robot.order_id,
        operation=robot.operation,
        target=robot.target,
        carrying=robot.carrying,
        waypoints=robot.waypoints,
        error=robot.error,
    )
