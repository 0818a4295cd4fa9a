"""A list that is an attribute of the class, not of the object: shared by all, and outliving all.

Each order has its own notes, or so its author thought. Repaired: made in ``__init__``.
"""

from stage import Stage


class Order:
    notes: list[str] = []  # noqa: RUF012 - this is the leak

    def __init__(self, number: int) -> None:
        self.number = number

    def add_note(self, text: str) -> None:
        self.notes.append(text)  # inserted here


class RepairedOrder(Order):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.notes = []


def main() -> None:
    stage = Stage(__doc__, rate=800)
    kind = RepairedOrder if stage.repaired else Order
    for number in stage.orders():
        text = f"order {number} waits at place {number} " * 12  # allocated here
        kind(number).add_note(text)


if __name__ == "__main__":
    main()
