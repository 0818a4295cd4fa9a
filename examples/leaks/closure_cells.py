"""A list in the cell of a closure: a handler that remembers every order it has seen.

Repaired: it remembers the number.
"""

from collections.abc import Callable

from stage import Stage

Handler = Callable[[int], None]


def make_handler() -> Handler:
    seen_orders: list[dict[str, str]] = []

    def handle(number: int) -> None:
        order = {"id": f"order {number}", "text": f"bring {number} bolts to place {number}" * 4}  # allocated here
        seen_orders.append(order)  # inserted here

    return handle


def make_repaired_handler() -> Handler:
    last = 0

    def handle(number: int) -> None:
        nonlocal last
        last = number

    return handle


HANDLERS: dict[str, Handler] = {}


def main() -> None:
    stage = Stage(__doc__, rate=900)
    HANDLERS["order"] = make_repaired_handler() if stage.repaired else make_handler()
    for number in stage.orders():
        HANDLERS["order"](number)


if __name__ == "__main__":
    main()
