"""How a simulated robot moves: planned when it sets out, then a pure function of the time."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import hypot

from msgspec import Struct

from flatwater.engine.fleet.plant import Plant


class Place(Struct, frozen=True):
    """A robot at ``(x, y)``, standing at ``node`` or bound to go on to it."""

    node: str
    x: float
    y: float


class Waypoint(Struct, frozen=True, array_like=True):
    """The robot is at ``(x, y)``, on its way to or at ``node``, at the time ``at`` (seconds since the epoch)."""

    at: float
    x: float
    y: float
    node: str


class Trip(Struct, frozen=True, array_like=True):
    """A drive at constant speed along ``waypoints``, of which there is at least one."""

    waypoints: tuple[Waypoint, ...]

    @property
    def begins_at(self) -> float:
        return self.waypoints[0].at

    @property
    def ends_at(self) -> float:
        return self.waypoints[-1].at

    @property
    def metres(self) -> float:
        return sum(hypot(b.x - a.x, b.y - a.y) for a, b in pairwise(self.waypoints))

    def position(self, at: float) -> tuple[float, float]:
        """Where the robot is; before the trip at its start, after it at its end."""
        index = bisect_right(self.waypoints, at, key=lambda point: point.at)
        if index == 0:
            return self.waypoints[0].x, self.waypoints[0].y
        here = self.waypoints[index - 1]
        if index == len(self.waypoints):
            return here.x, here.y
        there = self.waypoints[index]
        share = (at - here.at) / (there.at - here.at)
        return here.x + share * (there.x - here.x), here.y + share * (there.y - here.y)

    def stop(self, at: float) -> Place:
        """Where the robot stands when it is stopped at ``at``: it can go on only to the node ahead."""
        x, y = self.position(at)
        index = bisect_right(self.waypoints, at, key=lambda point: point.at)
        ahead = self.waypoints[min(index, len(self.waypoints) - 1)]
        return Place(ahead.node, x, y)

    def travelled(self, at: float) -> float:
        """Metres driven until ``at``."""
        whole = self.ends_at - self.begins_at
        if whole <= 0:
            return 0.0
        return self.metres * min(1.0, max(0.0, (at - self.begins_at) / whole))

    def rest(self, at: float) -> tuple[tuple[float, float, float], ...]:
        """``(at, x, y)`` of where it is now and of what lies ahead; empty when it has arrived."""
        ahead = tuple((point.at, point.x, point.y) for point in self.waypoints if point.at > at)
        return ((at, *self.position(at)), *ahead) if ahead else ()


def plan(plant: Plant, place: Place, target: str, begins_at: float, metres_per_s: float) -> Trip:
    """The trip from ``place`` along the shortest way to the node ``target``. Raises NotFoundError without a way."""
    at, x, y = begins_at, place.x, place.y
    waypoints = [Waypoint(at, x, y, place.node)]
    for name in plant.route(place.node, target):
        node = plant.nodes[name]
        length = hypot(node.x - x, node.y - y)
        if length == 0:
            continue
        at, x, y = at + length / metres_per_s, node.x, node.y
        waypoints.append(Waypoint(at, x, y, name))
    return Trip(tuple(waypoints))


def stay(place: Place, at: float) -> Trip:
    """A trip that leads nowhere."""
    return Trip((Waypoint(at, place.x, place.y, place.node),))
