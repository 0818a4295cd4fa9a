"""Many small lists instead of one large: the positions of each of 100 robots. Repaired: a deque of 5 for each."""

from collections import defaultdict, deque
from collections.abc import MutableSequence

from stage import Stage


class Fleet:
    histories: dict[str, MutableSequence[dict[str, str]]]

    def __init__(self, *, repaired: bool) -> None:
        self.histories = defaultdict(lambda: deque(maxlen=5)) if repaired else defaultdict(list)

    def report(self, robot: str, number: int) -> None:
        x, y = f"{number} m to the right", f"{number} m ahead"
        position = {"x": x, "y": y, "hall": f"hall {number}"}  # allocated here
        self.histories[robot].append(position)  # inserted here


def main() -> None:
    stage = Stage(__doc__, rate=1200)
    fleet = Fleet(repaired=stage.repaired)
    for number in stage.orders():
        fleet.report(f"R{number % 100}", number)


if __name__ == "__main__":
    main()
