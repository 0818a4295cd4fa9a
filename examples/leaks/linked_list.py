"""A chain of objects, each referring to the one before: no container grows at all.

Repaired: the chain is cut after 100.
"""

from stage import Stage


class Version:
    def __init__(self, number: int, previous: "Version | None") -> None:
        self.text = f"version {number} of the map, " * 12
        self.previous = previous


class Map:
    def __init__(self) -> None:
        self.current: Version | None = None

    def change(self, number: int) -> None:
        self.current = Version(number, self.current)  # allocated here, inserted here


class RepairedMap(Map):
    def change(self, number: int) -> None:
        super().change(number)
        if number % 100 == 0 and self.current:
            self.current.previous = None


def main() -> None:
    stage = Stage(__doc__, rate=1000)
    hall_map = RepairedMap() if stage.repaired else Map()
    for number in stage.orders():
        hall_map.change(number)


if __name__ == "__main__":
    main()
