"""``lru_cache`` without a bound on a method: it holds every answer, and every object that was asked.

Repaired: a bound, and the object is no part of the key.
"""

import functools

from stage import Stage


class Order:
    def __init__(self, number: int) -> None:
        self.number = number
        self.lines = [f"line {number}.{line}" for line in range(8)]

    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033 - this is the leak
    def weight(self) -> float:
        return sum(map(len, self.lines)) * 0.5  # allocated here, too


@functools.lru_cache(maxsize=256)
def weight_of(number: int) -> float:
    return number * 0.5


def handle(number: int) -> float:
    order = Order(number)  # allocated here
    return order.weight()  # inserted here


def main() -> None:
    stage = Stage(__doc__, rate=700)
    work = weight_of if stage.repaired else handle
    for number in stage.orders():
        work(number)


if __name__ == "__main__":
    main()
