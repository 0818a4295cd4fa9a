"""Cycles while the collector is switched off (gateway, its fourth leak: circular references).

Somebody called ``gc.disable()`` "against pauses". Each order and its lines refer to each other, so nothing of them
is freed. Repaired: the collector runs.
"""

import gc

from stage import Stage


class Order:
    def __init__(self, number: int) -> None:
        self.number = number
        self.lines = [Line(self, line) for line in range(10)]


class Line:
    def __init__(self, order: Order, line: int) -> None:
        self.order = order  # the cycle
        self.article = f"article {order.number}.{line}"


def accept(number: int) -> int:
    order = Order(number)
    return len(order.lines)


def main() -> None:
    stage = Stage(__doc__, rate=300)
    if not stage.repaired:
        gc.disable()
    for number in stage.orders():
        accept(number)


if __name__ == "__main__":
    main()
