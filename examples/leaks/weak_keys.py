"""A ``WeakKeyDictionary`` whose values refer to their keys, so that nothing in it ever dies.

Repaired: the value does not refer to its key.
"""

import weakref

from stage import Stage


class Robot:
    def __init__(self, number: int) -> None:
        self.name = f"robot {number}"


class State:
    def __init__(self, robot: Robot | None, number: int) -> None:
        self.robot = robot
        self.history = [f"state {number}.{step}" for step in range(8)]


class Fleet:
    def __init__(self) -> None:
        self.states: weakref.WeakKeyDictionary[Robot, State] = weakref.WeakKeyDictionary()

    def log_in(self, number: int, *, repaired: bool) -> None:
        robot = Robot(number)
        state = State(None if repaired else robot, number)  # allocated here
        self.states[robot] = state  # inserted here


def main() -> None:
    stage = Stage(__doc__, rate=600)
    fleet = Fleet()
    for number in stage.orders():
        fleet.log_in(number, repaired=stage.repaired)


if __name__ == "__main__":
    main()
