"""Objects with ``__slots__``, kept by an object with ``__slots__`` (no ``__dict__`` anywhere on the way).

The planner keeps every route that it has computed. Repaired: only the latest route of each robot.
"""

from stage import Stage


class Route:
    __slots__ = ("length", "places", "robot")

    def __init__(self, robot: int, number: int) -> None:
        self.robot = robot
        self.places = [f"place {number}.{stop}" for stop in range(12)]
        self.length = len(self.places)


class Planner:
    __slots__ = ("latest", "planned_routes")

    def __init__(self) -> None:
        self.planned_routes: list[Route] = []
        self.latest: dict[int, Route] = {}

    def plan(self, number: int) -> None:
        route = Route(number % 20, number)  # allocated here
        self.planned_routes.append(route)  # inserted here


class RepairedPlanner(Planner):
    __slots__ = ()

    def plan(self, number: int) -> None:
        route = Route(number % 20, number)
        self.latest[route.robot] = route


def main() -> None:
    stage = Stage(__doc__, rate=500)
    planner = RepairedPlanner() if stage.repaired else Planner()
    for number in stage.orders():
        planner.plan(number)


if __name__ == "__main__":
    main()
